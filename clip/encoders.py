"""FrozenCLIP: CLIP's two towers, never trained, and the places where a prompt may enter them.

What makes it fast without changing a result: a context that all classes share goes through the text tower once, or
once per image, with the classes' own tokens behind it and no padding between them; the last block computes only the
token that is read; and nothing is recorded for autograd below the first learnable input.
Source: CLIP (Radford et al., ICML 2021); causal reading at the end-of-text token, clip/model.py encode_text.
"""
from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .blocks import Attention, Block, LayerNorm
from .errors import InputError
from .packing import pack
from .products import Linear

PIXEL_MEAN, PIXEL_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class Injector(Protocol):
    """The whole contract between a prompt and a tower."""

    def inject(self, block: int, x: Tensor) -> Tensor:
        """What enters `block` instead of `x` (N, L, W); block -1 is before the vision tower's `ln_pre`.

        In the text tower `x` is every whole sequence, or the shared prefix alone (B, p, W) where there is one.
        """
        ...


@dataclass
class TextTokens:
    """Embedded token sequences, without positions.

    Attributes:
        embeddings: (N, L, W), each sequence's own tokens.
        eot: (N,) int64, index of the end-of-text token within `embeddings`; what stands behind it is ignored. It is
            best kept where it is needed: behind a prefix on the CPU, otherwise beside the embeddings.
        prefix: tokens that stand before all N sequences alike, (p, W); or several such prefixes (B, p, W), each
            followed by all N sequences; or None.
    """

    embeddings: Tensor
    eot: Tensor
    prefix: Tensor | None = None

    def __len__(self) -> int:
        return len(self.embeddings)

    def pieces(self, max_tokens: int) -> list[list[TextTokens]]:
        """Pieces of at most `max_tokens` tokens, or of one sequence: for each part of the prefixes, parts of the N."""
        if self.prefix is None:
            lengths, p, prefixes = [self.embeddings.shape[1]] * len(self), 0, [None]
        else:
            lengths, p, prefixes = (self.eot + 1).tolist(), self.prefix.shape[-2], [self.prefix]
            if self.prefix.dim() == 3:
                prefixes = self.prefix.split(max(1, max_tokens // (p + sum(lengths))))
        bounds, used = [0], p
        for n, length in enumerate(lengths):
            if n > bounds[-1] and used + length > max_tokens:
                bounds, used = [*bounds, n], p
            used += length
        parts = list(zip(bounds, [*bounds[1:], len(self)], strict=True))
        return [[TextTokens(self.embeddings[i:j], self.eot[i:j], prefix) for i, j in parts] for prefix in prefixes]


@dataclass(frozen=True)
class TowerShape:
    """What a state dict does not tell: heads, activation and the like. Widths and depths are read from the weights."""

    vision_heads: int
    text_heads: int
    activation: str = "quick_gelu"


def _blocks(weights: dict[str, Tensor], width: int, heads: int, activation: str) -> nn.Module:
    """A tower's `transformer`, with as many and as wide `resblocks` as `weights` hold; not yet loaded."""
    depth = 1 + max(int(k.split(".")[2]) for k in weights if k.startswith("transformer.resblocks."))
    first = "transformer.resblocks.0."
    hidden, scaled = len(weights[first + "mlp.c_fc.weight"]), first + "ls_1.gamma" in weights
    transformer = nn.Module()
    transformer.resblocks = nn.ModuleList(Block(width, heads, hidden, activation, scaled) for _ in range(depth))
    return transformer


class VisionTransformer(nn.Module):
    """CLIP's ViT over patches and one class token, with OpenAI's parameter names."""

    def __init__(self, weights: dict[str, Tensor], heads: int, activation: str):
        super().__init__()
        width, _, patch, _ = weights["conv1.weight"].shape
        self.conv1 = nn.Conv2d(3, width, patch, stride=patch, bias="conv1.bias" in weights)
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty_like(weights["positional_embedding"]))
        self.ln_pre = LayerNorm(width) if "ln_pre.weight" in weights else nn.Identity()
        self.transformer = _blocks(weights, width, heads, activation)
        self.ln_post = LayerNorm(width)
        self.proj = nn.Parameter(torch.empty_like(weights["proj"]))
        self.width, self.patch_size, self.depth = width, patch, len(self.transformer.resblocks)
        self.image_size = round((len(self.positional_embedding) - 1) ** 0.5) * patch

    def forward(self, images: Tensor, prompt: Injector | None = None) -> Tensor:
        """(B, 3, H, W) -> (B, D), not normalised."""
        x = self.conv1(images).flatten(2).transpose(1, 2)                                     # (B, P, W)
        cls = self.class_embedding.to(x.dtype).expand(x.shape[0], 1, -1)                      # (B, 1, W)
        x = torch.cat([cls, x], dim=1) + self.positional_embedding.to(x.dtype)                # (B, 1+P, W)
        enter = prompt.inject if prompt is not None else _unchanged
        x = self.ln_pre(enter(-1, x))
        *blocks, last = self.transformer.resblocks
        for i, block in enumerate(blocks):
            x = block(enter(i, x))
        x = last.read(enter(len(blocks), x))                                                  # (B, 1, W)
        return self.ln_post(x).squeeze(1) @ self.proj


def _unchanged(block: int, x: Tensor) -> Tensor:
    return x


class FrozenCLIP(nn.Module):
    """Both towers. No parameter requires a gradient, and `.train()` of an owner never reaches it.

    Build one with `clip.load_clip(name)`, `from_state_dict` or `clip.open_clip_models.from_open_clip`.

    Attributes:
        name, sha256: where the weights come from (set by `load_clip`).
        mean, std: per channel, with which images are normalised before `encode_image`.
        matrix_dtype: of the large matrices, see `half_weights`.
        known_tokens: BPE ids with a learned embedding, where that is not all of them; else None.
        max_tokens: how many text tokens go through the tower at once, which bounds the memory; 0 (initially): all. What
            goes in pieces is computed again for the gradient. Results are the same. May be set at any time.
        text_width, embed_dim, context_length, text_depth, image_size: read from the weights.
        vision_width, patch_size, depth: of a vision transformer; None for any other image tower.
        scale: () the factor on cosines, exp(logit_scale).
    """

    def __init__(self, visual: nn.Module, text: dict[str, Tensor], text_heads: int, activation: str, image_size: int):
        super().__init__()
        self.visual = visual
        vocabulary, W = text["token_embedding.weight"].shape
        self.token_embedding = nn.Embedding(vocabulary, W)
        self.positional_embedding = nn.Parameter(torch.empty_like(text["positional_embedding"]))
        self.transformer = _blocks(text, W, text_heads, activation)
        self.ln_final = LayerNorm(W)
        self.text_projection = nn.Parameter(torch.empty_like(text["text_projection"]))
        self.logit_scale = nn.Parameter(torch.empty(()))
        self.name, self.sha256, self.known_tokens, self.max_tokens = "", "", None, 0
        self.mean, self.std, self.matrix_dtype = PIXEL_MEAN, PIXEL_STD, torch.float32
        self.text_width, self.embed_dim = W, self.text_projection.shape[1]
        self.text_depth, self.context_length = len(self.transformer.resblocks), len(self.positional_embedding)
        is_vit = isinstance(visual, VisionTransformer)
        self.vision_width = visual.width if is_vit else None
        self.patch_size = visual.patch_size if is_vit else None
        self.depth = visual.depth if is_vit else None
        self.image_size = image_size
        self.requires_grad_(False).eval()

    @classmethod
    def from_state_dict(cls, state_dict: dict[str, Tensor], shape: TowerShape | None = None) -> FrozenCLIP:
        """Towers from a state dict in OpenAI's key layout, in float32.

        Args:
            state_dict: float tensors; OpenAI's `input_resolution`, `context_length` and `vocab_size` are ignored.
            shape: heads and activation; default OpenAI's rule, heads = width // 64 and QuickGELU.
        Raises:
            InputError: keys or shapes that are no CLIP of this layout.
        """
        weights = {k: v.float() for k, v in state_dict.items() if k not in _NO_WEIGHTS}
        if missing := sorted(_LANDMARKS - weights.keys()):
            raise InputError(f"A CLIP state dict in OpenAI's layout holds {', '.join(sorted(_LANDMARKS))}; "
                             f"this one lacks {', '.join(missing)}. Is it another model, or one part of CLIP?")
        visual = {k.removeprefix("visual."): v for k, v in weights.items() if k.startswith("visual.")}
        text = {k: v for k, v in weights.items() if not k.startswith("visual.")}
        if shape is None:
            shape = TowerShape(_vision_width(visual) // 64, text["ln_final.weight"].numel() // 64)
        if "proj" in visual:
            tower = VisionTransformer(visual, shape.vision_heads, shape.activation)
            image_size = tower.image_size
        else:
            tower, image_size = _resnet(visual, shape.vision_heads)
        clip = cls(tower, text, shape.text_heads, shape.activation, image_size)
        try:
            clip.load_state_dict(weights)
        except RuntimeError as error:
            raise InputError(f"The CLIP state dict does not fit together: {error}") from error
        return clip

    def train(self, mode: bool = True) -> FrozenCLIP:
        """Stays in evaluation mode whatever `mode` says: batch norm of a frozen tower never moves."""
        return super().train(False)

    @property
    def scale(self) -> Tensor:
        return self.logit_scale.exp()

    def encode_image(self, images: Tensor, prompt: Injector | None = None, unit_norm: bool = True) -> Tensor:
        """Image features.

        Args:
            images: (B, 3, image_size, image_size) float, normalised with CLIP's mean and standard deviation.
            prompt: enters the vision transformer; needs one (a ResNet has no tokens).
            unit_norm: whether they are normalised.
        Returns:
            (B, D), float32.
        """
        if images.shape[-2:] != (self.image_size, self.image_size):
            raise InputError(f"{self.name or 'This CLIP'} takes {self.image_size} x {self.image_size} images and got "
                             f"{images.shape[-2]} x {images.shape[-1]}. "
                             f"Set INPUT.SIZE ({self.image_size}, {self.image_size}).")
        if prompt is not None:
            self.require_tokens("A visual prompt")
        with self._own_precision():
            features = self.visual(images) if prompt is None else self.visual(images, prompt)
        return F.normalize(features.float(), dim=-1) if unit_norm else features.float()

    def require_tokens(self, who: str) -> None:
        """Raises InputError unless the image tower is a vision transformer, whose tokens a prompt can join."""
        if self.vision_width is None:
            raise InputError(f"{who} adds tokens to a vision transformer; {self.name or 'this CLIP'} has none in its "
                             "image tower. Use a ViT backbone such as ViT-B/16, or a method without visual tokens "
                             "such as CoOp.")

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """(N, L) int64 -> (N, L, W), without positions."""
        return self.token_embedding(ids)

    def encode_text(self, tokens: TextTokens, prompt: Injector | None = None) -> Tensor:
        """Text features, read at each sequence's end-of-text token.

        Args:
            tokens: N sequences; p + L at most `context_length`.
            prompt: enters the text tower; with a shared prefix it sees and may replace the prefix alone.
        Returns:
            (N, D), or (B, N, D) for B prefixes; unit norm, float32.
        """
        p, L = 0 if tokens.prefix is None else tokens.prefix.shape[-2], tokens.embeddings.shape[1]
        if p + L > self.context_length:
            raise InputError(f"A prompt holds at most {self.context_length} tokens; this one has {p + L}. "
                             "Shorten the class names or the context.")
        pieces = tokens.pieces(self.max_tokens) if self.max_tokens else [[tokens]]

        def encode(piece: TextTokens) -> Tensor:
            # The backward pass begins with the last piece, so that one alone may keep what it computed.
            if piece is pieces[-1][-1] or not torch.is_grad_enabled():
                return self._encode_text(piece, prompt)
            # A prompt may draw random numbers, for which the device is told by a tensor among the arguments.
            return checkpoint(lambda embeddings: self._encode_text(replace(piece, embeddings=embeddings), prompt),
                              piece.embeddings, use_reentrant=False, preserve_rng_state=prompt is not None)

        with self._own_precision():
            return torch.cat([torch.cat([encode(piece) for piece in row], dim=-2) for row in pieces])

    def _encode_text(self, tokens: TextTokens, prompt: Injector | None) -> Tensor:
        enter = prompt.inject if prompt is not None else _unchanged
        if tokens.prefix is not None:
            return self._encode_behind_prefix(tokens, enter)
        x = tokens.embeddings                                                                 # (N, L, W)
        x = x + self.positional_embedding[:x.shape[1]].to(x.dtype)
        *blocks, last = self.transformer.resblocks
        for i, block in enumerate(blocks):
            x = block(enter(i, x), causal=True)
        x = last.read(enter(len(blocks), x), tokens.eot.to(x.device))                         # (N, 1, W)
        return self._joint(x.squeeze(1))

    def _encode_behind_prefix(self, tokens: TextTokens, enter: Callable[[int, Tensor], Tensor]) -> Tensor:
        prefix = tokens.prefix if tokens.prefix.dim() == 3 else tokens.prefix[None]
        B, p, _ = prefix.shape
        at = pack(tuple((tokens.eot + 1).tolist()), prefix.device)
        position = self.positional_embedding.to(prefix.dtype)
        own = tokens.embeddings[at.sequence, at.token] + position[p + at.token]               # (R*L, W)
        prefix, own = prefix + position[:p], own.expand(B, -1, -1)                            # (B, p, W), (B, R*L, W)
        mask, places = F.pad(at.mask, (p, 0), value=True), p + at.last                        # (R, L, p+L), (N,)
        *blocks, last = self.transformer.resblocks
        for i, block in enumerate(blocks):
            prefix, own = block.after_prefix(torch.cat([enter(i, prefix), own], 1), mask).split([p, own.shape[1]], 1)
        x = last.after_prefix(torch.cat([enter(len(blocks), prefix), own], 1), mask, places)  # (B, N, W)
        features = self._joint(x)
        return features if tokens.prefix.dim() == 3 else features[0]

    def _joint(self, x: Tensor) -> Tensor:
        """(..., W), a read-out token -> (..., D), unit norm, float32."""
        return F.normalize((self.ln_final(x) @ self.text_projection).float(), dim=-1)

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


def _resnet(visual: dict[str, Tensor], heads: int) -> tuple[nn.Module, int]:
    """CLIP's modified ResNet (open_clip's module) and the image side it was made for."""
    from open_clip.modified_resnet import ModifiedResNet

    layers = [len({k.split(".")[1] for k in visual if k.startswith(f"layer{i}.")}) for i in (1, 2, 3, 4)]
    image_size = round((len(visual["attnpool.positional_embedding"]) - 1) ** 0.5) * 32
    embed_dim = len(visual["attnpool.c_proj.weight"])
    width = visual["layer1.0.conv1.weight"].shape[0]
    return ModifiedResNet(layers, embed_dim, heads, image_size=image_size, width=width), image_size
