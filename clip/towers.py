"""FrozenCLIP: CLIP's two towers, frozen unless a method releases a part, and the ways into them.

What makes it fast without changing a result: a context that all classes share goes through the text tower once, or
once per image, with the classes' own tokens behind it and no padding between them; the last block computes only the
tokens that are read; and nothing is recorded for autograd below the first learnable input.
Source: CLIP (Radford et al., ICML 2021); causal reading at the end-of-text token, clip/model.py encode_text.
"""
from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from . import tokenizer
from .backbones import PIXEL_MEAN, PIXEL_STD
from .blocks import Attention, LayerNorm, take
from .errors import InputError
from .packing import TextTokens, pack
from .products import Linear
from .tuning import Tuner, Tuners
from .vision import VisionTransformer, Want, build_blocks, build_resnet, check_want, places, required

_Tuning = Tuner | Sequence[Tuner] | None


@dataclass(frozen=True)
class TowerShape:
    """What a state dict does not tell. Widths and depths are read from the weights.

    Attributes:
        causal: text tokens see their past alone.
        read_at: the text token that is read, "eot" or "last" (of the context).
    """

    vision_heads: int
    text_heads: int
    activation: str = "quick_gelu"
    causal: bool = True
    read_at: str = "eot"


class FrozenCLIP(nn.Module):
    """Both towers. No parameter requires a gradient unless released, and `.train()` of an owner never reaches it.

    Build one with `clip.load_clip(name)`, `from_state_dict` or `clip.open_clip_models.from_open_clip`.

    Attributes:
        name, sha256: where the weights come from (set by `load_clip`).
        mean, std: per channel, with which images are normalised before `encode_image`.
        tokenizer: texts to ids; has `encode`, `decode` and `tokenize` as `clip.tokenizer` does.
        causal, read_at: of the text tower, see `TowerShape`.
        matrix_dtype: of the large matrices, see `half_weights`.
        known_tokens: BPE ids with a learned embedding, where that is not all of them; else None.
        max_tokens: how many text tokens go through the tower at once, which bounds the memory; 0 (initially): all. What
            goes in pieces is computed again for the gradient. Results are the same. May be set at any time.
        text_width, embed_dim, context_length, text_depth: read from the weights.
        vision_width, patch_size, depth: of a vision transformer; None for any other image tower.
        bias: () added to scaled cosines; 0 in CLIP, learned in SigLIP.
    """

    tokenizer = tokenizer

    def __init__(self, visual: nn.Module, text: dict[str, Tensor], shape: TowerShape):
        super().__init__()
        self.visual = visual
        vocabulary, W = text["token_embedding.weight"].shape
        self.token_embedding = nn.Embedding(vocabulary, W)
        self.positional_embedding = nn.Parameter(torch.empty_like(text["positional_embedding"]))
        self.transformer = build_blocks(text, W, shape.text_heads, shape.activation)
        self.ln_final = LayerNorm(W)
        self.text_projection = nn.Parameter(torch.empty_like(text["text_projection"]))
        self.logit_scale = nn.Parameter(torch.empty(()))
        self.register_buffer("bias", torch.zeros(()), persistent=False)
        self.name, self.sha256, self.known_tokens, self.max_tokens = "", "", None, 0
        self.mean, self.std, self.matrix_dtype = PIXEL_MEAN, PIXEL_STD, torch.float32
        self.causal, self.read_at = shape.causal, shape.read_at
        self.text_width, self.embed_dim = W, self.text_projection.shape[1]
        self.text_depth, self.context_length = len(self.transformer.resblocks), len(self.positional_embedding)
        is_vit = isinstance(visual, VisionTransformer)
        self.vision_width = visual.width if is_vit else None
        self.patch_size = visual.patch_size if is_vit else None
        self.depth = visual.depth if is_vit else None
        self.requires_grad_(False).eval()

    @classmethod
    def from_state_dict(cls, state_dict: dict[str, Tensor], shape: TowerShape | None = None) -> FrozenCLIP:
        """Towers from a state dict in OpenAI's key layout, in float32.

        Args:
            state_dict: float tensors; OpenAI's `input_resolution`, `context_length` and `vocab_size` are ignored.
            shape: default OpenAI's rule, heads = width // 64 and QuickGELU.
        Raises:
            InputError: keys or shapes that are no CLIP of this layout.
        """
        weights = {k: v.float() for k, v in state_dict.items() if k not in _NO_WEIGHTS}
        bias = weights.pop("logit_bias", torch.zeros(()))
        if missing := sorted(_LANDMARKS - weights.keys()):
            raise InputError(f"A CLIP state dict in OpenAI's layout holds {', '.join(sorted(_LANDMARKS))}; "
                             f"this one lacks {', '.join(missing)}. Is it another model, or one part of CLIP?")
        visual = {k.removeprefix("visual."): v for k, v in weights.items() if k.startswith("visual.")}
        text = {k: v for k, v in weights.items() if not k.startswith("visual.")}
        if shape is None:
            shape = TowerShape(_vision_width(visual) // 64, text["ln_final.weight"].numel() // 64)
        tower = VisionTransformer(visual, shape.vision_heads, shape.activation) if "proj" in visual else \
            build_resnet(visual, shape.vision_heads)
        clip = cls(tower, text, shape)
        try:
            clip.load_state_dict(weights)
        except RuntimeError as error:
            raise InputError(f"The CLIP state dict does not fit together: {error}") from error
        clip.bias.copy_(bias.reshape(()))
        return clip

    def train(self, mode: bool = True) -> FrozenCLIP:
        """Stays in evaluation mode whatever `mode` says: batch norm of a frozen tower never moves."""
        return super().train(False)

    def trainable(self, pattern: str) -> nn.ParameterDict:
        """Release the parameters whose whole name matches, e.g. r"visual\\..*ln_\\d\\..*"; they require gradients now.

        Returns:
            The same parameters by name ("." is "/" there), to be a brick that is optimised and saved.
        Raises:
            InputError: nothing matches.
        """
        found = {name.replace(".", "/"): p for name, p in self.named_parameters() if re.fullmatch(pattern, name)}
        if not found:
            raise InputError(f"No parameter of {self.name or 'this CLIP'} matches {pattern!r}.")
        for parameter in found.values():
            parameter.requires_grad_(True)
        return nn.ParameterDict(found)

    def frozen_copy(self) -> FrozenCLIP:
        """Towers of their own with the present weights, none of them released."""
        return copy.deepcopy(self).requires_grad_(False)

    @property
    def scale(self) -> Tensor:
        """() the factor on cosines, exp(logit_scale)."""
        return self.logit_scale.exp()

    @property
    def image_size(self) -> int:
        """Side of the images that the image tower takes, in pixels."""
        return self.visual.image_size

    def resize_images(self, image_size: int) -> None:
        """Take images of another side from now on: position embeddings are interpolated (bicubic).

        Raises:
            InputError: no whole number of patches, or a tower whose positions are not known.
        """
        if not hasattr(self.visual, "resize"):
            raise InputError(f"The position embeddings of {self.name or 'this image tower'} are not known, so it takes "
                             f"images of {self.image_size} pixels only, got {image_size}.")
        self.visual.resize(image_size)

    def encode_image(self, images: Tensor, tuner: _Tuning = None, *, want: Want = "pooled", joint: bool = True,
                     unit_norm: bool = True) -> Tensor:
        """Image features.

        Args:
            images: (B, 3, image_size, image_size) float, normalised with the tower's `mean` and `std`; frames of B
                clips (B, T, 3, ...), or of V clips each (B, V, T, 3, ...), give the mean over their features.
            tuner: what acts inside; needs a vision transformer (a ResNet has no blocks of tokens).
            want: "pooled"; "tokens", the pooled one and then every other (a ResNet: its attention pool at the mean and
                at every position); positions such as [0, -1]; "class_tokens", the class token that leaves each block,
                in the tower's width, as it is; "readers", the read-only tokens of a tuner.
            joint: in the space that both towers share, else in the tower's width, after the last norm.
            unit_norm: whether they are normalised; never so for "class_tokens".
        Returns:
            (B, D) pooled, else (B, k, D), float32; width W in place of D without `joint`.
        Raises:
            InputError: images of another size; a tuner or a `want` that this tower does not have.
        """
        check_want(want)
        if images.dim() > 4:
            features = self.encode_image(images.flatten(0, -4), tuner, want=want, joint=joint, unit_norm=False)
            features = features.unflatten(0, (len(images), -1)).mean(1)                       # over T or V * T
            return F.normalize(features, dim=-1) if unit_norm and want != "class_tokens" else features
        if images.shape[-2:] != (self.image_size, self.image_size):
            raise InputError(f"{self.name or 'This CLIP'} takes {self.image_size} x {self.image_size} images, got "
                             f"{images.shape[-2]} x {images.shape[-1]}.")
        tuners = Tuners(tuner)
        if tuners:
            self.require_tokens("A visual prompt")
        with self._own_precision():
            features = self.visual(images, tuners, want, joint).float()
        return F.normalize(features, dim=-1) if unit_norm and want != "class_tokens" else features

    def require_tokens(self, who: str) -> None:
        """Raises InputError unless the image tower is a vision transformer, whose tokens a prompt can join."""
        if self.vision_width is None:
            raise InputError(f"{who} acts on the tokens of a vision transformer; {self.name or 'this CLIP'} has none "
                             "in its image tower. Use a ViT such as ViT-B/16, or a method that leaves the image tower "
                             "alone, such as CoOp.")

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """(N, L) int64 -> (N, L, W), without positions."""
        return self.token_embedding(ids)

    def encode_text(self, tokens: TextTokens, tuner: _Tuning = None, *, want: Want = "pooled",
                    unit_norm: bool = True) -> Tensor:
        """Text features, read at the end-of-text token unless `want` says otherwise.

        Args:
            tokens: N sequences; p + L at most `context_length`.
            tuner: what acts inside. With a shared prefix `enter` sees and may replace the prefix alone, unless a tuner
                says `whole_sequence`.
            want: as in `encode_image`; "tokens" include what follows the end-of-text, which means nothing, and
                "class_tokens" are those at the end-of-text.
            unit_norm: whether they are normalised; never so for "class_tokens".
        Returns:
            (N, D), or (B, N, D) for B prefixes, float32; (..., k, D) unless pooled; W in place of D for "class_tokens".
        """
        check_want(want)
        tuners = Tuners(tuner)
        if tuners.has_prefix:
            raise InputError("Learned keys and values act in the image tower alone, and this tuner has some.")
        p, L = 0 if tokens.prefix is None else tokens.prefix.shape[-2], tokens.embeddings.shape[1]
        if p + L > self.context_length:
            raise InputError(f"A prompt holds at most {self.context_length} tokens, got {p + L}. "
                             "Shorten the class names or the context.")
        by_sequence = tuners.whole_sequence or not self.causal or want != "pooled"
        several = (len(tokens.prefix),) if tokens.prefix is not None and tokens.prefix.dim() == 3 else ()
        if by_sequence and several:
            return self.encode_text(tokens.whole(), tuners, want=want, unit_norm=unit_norm).unflatten(
                0, (*several, len(tokens)))
        tokens = tokens.whole() if by_sequence else tokens
        pieces = tokens.pieces(self.max_tokens)

        def encode(rows: slice, piece: TextTokens) -> Tensor:
            own = tuners.select(rows)
            # The backward pass begins with the last piece, so that one alone may keep what it computed.
            if piece is pieces[-1][-1][1] or not torch.is_grad_enabled():
                return self._encode_text(piece, own, want)
            # A tuner may draw random numbers, for which checkpoint() finds the device from a tensor argument.
            return checkpoint(lambda embeddings: self._encode_text(replace(piece, embeddings=embeddings), own, want),
                              piece.embeddings, use_reentrant=False, preserve_rng_state=bool(tuners))

        dim = -2 if want == "pooled" else -3
        with self._own_precision():
            features = torch.cat([torch.cat([encode(*piece) for piece in row], dim=dim) for row in pieces]).float()
        return F.normalize(features, dim=-1) if unit_norm and want != "class_tokens" else features

    def _encode_text(self, tokens: TextTokens, tuners: Tuners, want: Want) -> Tensor:
        if tokens.prefix is not None:
            return self._encode_behind_prefix(tokens, tuners)
        x, eot = tokens.embeddings, tokens.eot.to(tokens.embeddings.device)                   # (N, L, W), (N,)
        x = x + self.positional_embedding[:x.shape[1]].to(x.dtype)
        *blocks, last = self.transformer.resblocks
        at_end, readers = [], None
        for i, block in enumerate(self.transformer.resblocks):
            before = x.shape[1]
            x = tuners.enter(i, x)
            eot = eot + (x.shape[1] - before)
            readers = tuners.read_only(i, block, x, readers, eot)
            if i < len(blocks):
                x = tuners.leave(i, x, block(x, causal=self.causal, project=tuners.project(i)))
                at_end += [take(x, eot[:, None])] if want == "class_tokens" else []
        readers = tuners.readers(i + 1, x, readers)
        if want == "readers":
            return self._joint(required(readers))                                             # (N, k, D)
        index = eot[:, None] if want in ("pooled", "class_tokens") else places(want, x)       # (N, 1) or (1, k)
        y = last.read(x, index, causal=self.causal, project=tuners.project(i))
        x = tuners.leave(i, take(x, index), y)                                                # (N, k, W)
        if want == "class_tokens":
            return torch.cat([*at_end, x], dim=1)                                             # (N, depth, W)
        x = self._joint(x)
        return x.squeeze(1) if want == "pooled" else x

    def _encode_behind_prefix(self, tokens: TextTokens, tuners: Tuners) -> Tensor:
        prefix = tokens.prefix if tokens.prefix.dim() == 3 else tokens.prefix[None]
        B, p, _ = prefix.shape
        at = pack(tuple((tokens.eot + 1).tolist()), prefix.device)
        position = self.positional_embedding.to(prefix.dtype)
        own = tokens.embeddings[at.sequence, at.token] + position[p + at.token]               # (R*L, W)
        prefix, own = prefix + position[:p], own.expand(B, -1, -1)                            # (B, p, W), (B, R*L, W)
        *blocks, last = self.transformer.resblocks
        for i in range(self.text_depth):
            prefix = tuners.enter(i, prefix)                                                  # p may grow here
            if i == 0 or prefix.shape[1] != p:
                p = prefix.shape[1]
                mask, ends = F.pad(at.mask, (p, 0), value=True), p + at.last                  # (R, L, p+L), (N,)
            x = torch.cat([prefix, own], 1)                                                   # (B, p + R*L, W)
            if i < len(blocks):
                y = blocks[i].after_prefix(x, mask, project=tuners.project(i))
                prefix, own = tuners.leave(i, x, y).split([p, own.shape[1]], 1)
        y = last.after_prefix(x, mask, ends, project=tuners.project(i))
        features = self._joint(tuners.leave(i, x[:, ends], y))                                # (B, N, D)
        return features if tokens.prefix.dim() == 3 else features[0]

    def _joint(self, x: Tensor) -> Tensor:
        """(..., W), a token that is read -> (..., D)."""
        return self.ln_final(x) @ self.text_projection

    def half_weights(self, dtype: torch.dtype = torch.float16) -> FrozenCLIP:
        """Stores the towers' large matrices in `dtype`, in which they then compute (under autocast, wherever they are
        called from); norms, embeddings and features stay float32.
        """
        self.matrix_dtype = dtype
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d, Attention)):
                module.to(dtype)
        return self

    def multiply_by_onednn(self, onednn: bool) -> None:
        """Whether products in the towers' blocks are oneDNN's, see `clip.products`."""
        for module in self.modules():
            if isinstance(module, (Linear, Attention)):
                module.onednn = onednn

    def compile_image_blocks(self) -> None:
        """Fuse the elementwise work between the products of every image block (of the whole tower, if a ResNet)."""
        for block in [self.visual] if self.vision_width is None else self.visual.transformer.resblocks:
            block.compile()

    def _own_precision(self):
        if self.matrix_dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.logit_scale.device.type, dtype=self.matrix_dtype)


_NO_WEIGHTS = {"input_resolution", "context_length", "vocab_size", "transformer.attn_mask", "attn_mask"}
_LANDMARKS = {"visual.conv1.weight", "transformer.resblocks.0.attn.in_proj_weight", "token_embedding.weight",
              "positional_embedding", "ln_final.weight", "text_projection", "logit_scale"}


def _vision_width(visual: dict[str, Tensor]) -> int:
    """Width by which OpenAI counts heads: the ViT's, or 32 times the stem's of a ResNet."""
    stem = visual["conv1.weight"].shape[0]
    return stem if "proj" in visual else 2 * stem * 32
