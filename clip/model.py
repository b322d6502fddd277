"""OpenAI's CLIP as a module: towers over (L, N, W), their attribute and parameter names, and MaPLe's prompted variants.

For trainers that are written against those names; ours use `clip.towers`. Modules are made and drawn in OpenAI's
order, so what a trainer draws after `build_model` is the same at the same seed.
Source: CLIP (Radford et al., ICML 2021), clip/model.py; prompts: MaPLe (Khattak et al., CVPR 2023), clip/model.py.
"""
from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .blocks import LayerNorm, QuickGELU
from .errors import InputError
from .state_dicts import shapes_of

PLAIN = {"trainer": "CoOp", "vision_depth": 0, "language_depth": 0, "vision_ctx": 0, "language_ctx": 0}
_NO_WEIGHTS = {"input_resolution", "context_length", "vocab_size", "attn_mask"}


class ResidualAttentionBlock(nn.Module):
    """x + attention(ln_1(x)), then x + mlp(ln_2(x)), over (L, N, W).

    Attributes:
        attn_mask: (L_max, L_max) added to the attention's scores, cut to the length of what comes in; or None.
    """

    def __init__(self, d_model: int, n_head: int, attn_mask: Tensor | None = None):
        super().__init__()
        self.attn = nn.MultiheadAttention(d_model, n_head)
        self.ln_1 = LayerNorm(d_model)
        self.mlp = nn.Sequential(OrderedDict(
            c_fc=nn.Linear(d_model, 4 * d_model), gelu=QuickGELU(), c_proj=nn.Linear(4 * d_model, d_model)))
        self.ln_2 = LayerNorm(d_model)
        self.register_buffer("attn_mask", attn_mask, persistent=False)

    def attention(self, x: Tensor) -> Tensor:
        mask = None if self.attn_mask is None else self.attn_mask[:x.shape[0], :x.shape[0]].to(x)
        return self.attn(x, x, x, need_weights=False, attn_mask=mask)[0]

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class DeepPromptBlock(ResidualAttentionBlock):
    """A block with learned tokens of its own in the place of those that enter it (IVLP, VPT, PromptSRC).

    Attributes:
        VPT_shallow: (n, W) drawn from N(0, 0.02); the name under which public checkpoints hold it.
    """

    def __init__(self, d_model: int, n_head: int, attn_mask: Tensor | None, n_ctx: int, text_layer: bool):
        super().__init__(d_model, n_head, attn_mask)
        self.text_layer = text_layer
        self.VPT_shallow = nn.Parameter(0.02 * torch.randn(n_ctx, d_model))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(replace_prompts(x, self.VPT_shallow, self.text_layer))


class CompoundPromptBlock(ResidualAttentionBlock):
    """A block that takes its tokens from a list which travels with x (MaPLe)."""

    def __init__(self, d_model: int, n_head: int, attn_mask: Tensor | None, first: bool, text_layer: bool):
        super().__init__(d_model, n_head, attn_mask)
        self.first, self.text_layer = first, text_layer

    def forward(self, inputs: Tensor | list) -> Tensor | list:
        """(L, N, W), or [(L, N, W), prompts of the deeper blocks, how many of them are used up] -> the same.

        The first block's tokens are in x already; each later one takes the next prompt (n, W), while there are any.
        """
        if isinstance(inputs, Tensor):
            return super().forward(inputs)
        x, prompts, counter = inputs
        if not self.first and counter < len(prompts):
            x, counter = replace_prompts(x, prompts[counter], self.text_layer), counter + 1
        return [super().forward(x), prompts, counter]


def replace_prompts(x: Tensor, tokens: Tensor, text_layer: bool) -> Tensor:
    """x (L, N, W) with the n tokens (n, W) or (N, n, W) behind its first place (text), or in its last n (vision)."""
    tokens = tokens.to(x.dtype).expand(x.shape[1], -1, -1).transpose(0, 1)                    # (n, N, W)
    n = tokens.shape[0]
    return torch.cat([x[:1], tokens, x[1 + n:]] if text_layer else [x[:x.shape[0] - n], tokens])


def compute(module: nn.Module, x: Tensor | list) -> Tensor | list:
    """module(x), of a tensor or of a list that begins with one.

    Half precision on a CPU is computed in float32: no less exact and, at ViT-B/16's widths, 30 times faster for the
    text tower with gradients and 3 times for the vision tower.
    """
    first, *rest = [x] if isinstance(x, Tensor) else x
    if first.dtype != torch.float16 or first.device.type != "cpu":
        return module(x)
    weights = {name: weight.float() for name, weight in module.named_parameters()}
    if isinstance(x, Tensor):
        return functional_call(module, weights, (first.float(),)).half()
    first, *rest = functional_call(module, weights, ([first.float(), *rest],))
    return [first.half(), *rest]


class Transformer(nn.Module):
    """Blocks in a row, prompted as `design_details` says (see `build_model`); takes and returns what they do."""

    def __init__(self, width: int, layers: int, heads: int, attn_mask: Tensor | None = None, prompts_needed: int = 0,
                 text_layer: bool = False, design_details: Mapping | None = None):
        super().__init__()
        design = design_details or PLAIN
        self.width, self.layers = width, layers

        def block(i: int) -> ResidualAttentionBlock:
            if design["trainer"] == "MaPLe":
                return CompoundPromptBlock(width, heads, attn_mask, i == 0, text_layer)
            if 0 < i < prompts_needed:
                n_ctx = design["language_ctx" if text_layer else "vision_ctx"]
                return DeepPromptBlock(width, heads, attn_mask, n_ctx, text_layer)
            return ResidualAttentionBlock(width, heads, attn_mask)

        self.resblocks = nn.Sequential(*(block(i) for i in range(layers)))

    def forward(self, x: Tensor | list) -> Tensor | list:
        return compute(self.resblocks, x)


class VisionTransformer(nn.Module):
    """Patches and a class token; learned tokens, if any, behind them and before `ln_pre`.

    Attributes:
        VPT: (n, W) drawn from N(0, 0.02), the first block's tokens of the IVLP and VPT designs; else None.
    """

    def __init__(self, input_resolution: int, patch_size: int, width: int, layers: int, heads: int, output_dim: int,
                 design_details: Mapping | None = None):
        super().__init__()
        design = design_details or PLAIN
        scale, prompted = width ** -0.5, design["trainer"] != "MaPLe" and design["vision_depth"] > 0
        self.input_resolution, self.output_dim = input_resolution, output_dim
        self.conv1 = nn.Conv2d(3, width, patch_size, stride=patch_size, bias=False)
        self.VPT = nn.Parameter(0.02 * torch.randn(design["vision_ctx"], width)) if prompted else None
        self.class_embedding = nn.Parameter(scale * torch.randn(width))
        self.positional_embedding = nn.Parameter(scale * torch.randn((input_resolution // patch_size) ** 2 + 1, width))
        self.ln_pre = LayerNorm(width)
        self.transformer = Transformer(width, layers, heads, prompts_needed=design["vision_depth"],
                                       design_details=design)
        self.ln_post = LayerNorm(width)
        self.proj = nn.Parameter(scale * torch.randn(width, output_dim))

    def forward(self, x: Tensor, shared_ctx: Tensor | None = None,
                compound_deeper_prompts: Sequence[Tensor] = ()) -> Tensor:
        """Image features, not normalised.

        Args:
            x: (B, 3, H, H), normalised with CLIP's mean and standard deviation.
            shared_ctx: MaPLe's tokens of the first block, (n, W).
            compound_deeper_prompts: MaPLe's tokens of the next blocks, each (n, W).
        Returns:
            (B, D).
        """
        x = compute(self.conv1, x).flatten(2).transpose(1, 2)                                 # (B, P, W)
        x = torch.cat([self.class_embedding.to(x.dtype).expand(x.shape[0], 1, -1), x], dim=1)  # (B, 1+P, W)
        x = x + self.positional_embedding.to(x.dtype)
        tokens = self.VPT if shared_ctx is None else shared_ctx
        if tokens is not None:
            x = torch.cat([x, tokens.to(x.dtype).expand(x.shape[0], -1, -1)], dim=1)          # (B, 1+P+n, W)
        x = self.ln_pre(x).transpose(0, 1)                                                    # (L, B, W)
        x = self.transformer(x) if shared_ctx is None else self.transformer([x, compound_deeper_prompts, 0])[0]
        x = self.ln_post(x[0])                                                                # (B, W)
        return x if self.proj is None else x @ self.proj


def _resnet(layers: Sequence[int], output_dim: int, heads: int, input_resolution: int, width: int) -> nn.Module:
    """CLIP's modified ResNet (open_clip's module) with OpenAI's attributes."""
    from open_clip.modified_resnet import ModifiedResNet

    tower = ModifiedResNet(layers, output_dim, heads, input_resolution, width)
    tower.input_resolution = input_resolution
    return tower


class CLIP(nn.Module):
    """Both towers; arguments, attributes and parameters have OpenAI's names. Every parameter can be trained.

    Args:
        vision_layers: blocks of a vision transformer, or the four counts of a ResNet.
        design_details: see `build_model`.
    """

    def __init__(self, embed_dim: int, image_resolution: int, vision_layers: int | Sequence[int], vision_width: int,
                 vision_patch_size: int | None, context_length: int, vocab_size: int, transformer_width: int,
                 transformer_heads: int, transformer_layers: int, design_details: Mapping | None = None):
        super().__init__()
        design = design_details or PLAIN
        self.context_length, self.vocab_size = context_length, vocab_size
        if isinstance(vision_layers, int):
            self.visual = VisionTransformer(image_resolution, vision_patch_size, vision_width, vision_layers,
                                            vision_width // 64, embed_dim, design)
        else:
            self.visual = _resnet(vision_layers, embed_dim, vision_width * 32 // 64, image_resolution, vision_width)
        self.transformer = Transformer(transformer_width, transformer_layers, transformer_heads,
                                       self.build_attention_mask(), design["language_depth"], True, design)
        self.token_embedding = nn.Embedding(vocab_size, transformer_width)
        self.positional_embedding = nn.Parameter(torch.empty(context_length, transformer_width))
        self.ln_final = LayerNorm(transformer_width)
        self.text_projection = nn.Parameter(torch.empty(transformer_width, embed_dim))
        self.logit_scale = nn.Parameter(torch.tensor(1 / 0.07).log())
        self._unrounded = {}
        self.initialize_parameters()

    def initialize_parameters(self) -> None:
        """OpenAI's distributions of untrained weights (a ResNet draws its own when it is made)."""
        width = self.transformer.width
        attention, projection = width ** -0.5, width ** -0.5 * (2 * self.transformer.layers) ** -0.5
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.01)
        for block in self.transformer.resblocks:
            nn.init.normal_(block.attn.in_proj_weight, std=attention)
            nn.init.normal_(block.attn.out_proj.weight, std=projection)
            nn.init.normal_(block.mlp.c_fc.weight, std=(2 * width) ** -0.5)
            nn.init.normal_(block.mlp.c_proj.weight, std=projection)
        nn.init.normal_(self.text_projection, std=attention)

    def build_attention_mask(self) -> Tensor:
        """(77, 77): 0 where a token may look, minus infinity at its future."""
        return torch.full((self.context_length, self.context_length), float("-inf")).triu_(1)

    def float(self) -> CLIP:
        """Float32; weights that `build_model` rounded to half precision, and no one changed, are exact again."""
        own = dict(self.named_parameters())
        exact = {k: w for k, w in self._unrounded.items() if torch.equal(own[k], w.to(own[k]))}
        super().float()
        with torch.no_grad():
            for name, weight in exact.items():
                own[name].copy_(weight)
        self._unrounded = {}
        return self

    @property
    def dtype(self) -> torch.dtype:
        return self.visual.conv1.weight.dtype

    def encode_image(self, image: Tensor) -> Tensor:
        """(B, 3, H, H) -> (B, D), not normalised."""
        return self.visual(image.type(self.dtype))

    def encode_text(self, text: Tensor) -> Tensor:
        """(N, L) ids -> (N, D), read at the largest id of each row, which is its end-of-text; not normalised."""
        x = self.token_embedding(text).type(self.dtype)                                       # (N, L, W)
        x = x + self.positional_embedding[:text.shape[1]].type(self.dtype)
        x = self.transformer(x.transpose(0, 1)).transpose(0, 1)                               # (N, L, W)
        x = self.ln_final(x[torch.arange(x.shape[0], device=x.device), text.argmax(dim=-1)])      # (N, W)
        return x.type(self.dtype) @ self.text_projection

    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Scaled cosines: (B, N) per image and (N, B) per text."""
        image_features, text_features = self.encode_image(image), self.encode_text(text)
        image_features = image_features / image_features.norm(dim=-1, keepdim=True)
        text_features = text_features / text_features.norm(dim=-1, keepdim=True)
        logits_per_image = self.logit_scale.exp() * image_features @ text_features.t()
        return logits_per_image, logits_per_image.t()


def convert_weights(model: nn.Module) -> None:
    """Stores matrices, convolutions, their biases and projections in half precision, in place, as OpenAI's does.

    Norms, embeddings and prompts stay as they are.
    """
    def convert(module: nn.Module) -> None:
        parameters = [getattr(module, name, None) for name in ("text_projection", "proj")]
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Linear)):
            parameters += [module.weight, module.bias]
        elif isinstance(module, nn.MultiheadAttention):
            parameters += [module.in_proj_weight, module.in_proj_bias]
        for parameter in parameters:
            if isinstance(parameter, nn.Parameter):
                parameter.data = parameter.data.half()      # another dtype cannot be copied into the same parameter

    model.apply(convert)


def build_model(state_dict: Mapping[str, Tensor], design_details: Mapping | None = None) -> CLIP:
    """CLIP from a state dict in OpenAI's layout, in evaluation mode and in half precision (see `convert_weights`).

    `.float()` makes it float32, with the state dict's exact values.

    Args:
        state_dict: heads are width // 64 and the activation is QuickGELU, as in all of OpenAI's models.
        design_details: MaPLe's: `trainer` and, per tower, how many blocks are prompted (`vision_depth`,
            `language_depth`) with how many tokens (`vision_ctx`, `language_ctx`). "MaPLe": no tokens here; towers
            take them as arguments. Any other trainer: `visual.VPT` and `...resblocks.<i>.VPT_shallow` for the blocks
            1 to depth - 1 are learned; the text tower's first tokens are the trainer's. None: no prompts.
    Raises:
        InputError: the state dict is not a CLIP of this layout, or lacks weights.
    """
    design = {**PLAIN, **(design_details or {})}
    weights = {k: v for k, v in state_dict.items() if k.split(".")[-1] not in _NO_WEIGHTS}
    try:
        model = CLIP(*_dimensions(weights), design)
    except (KeyError, ValueError) as error:
        raise InputError(f"A CLIP state dict in OpenAI's layout holds {error}; this one, of {len(weights)} tensors, "
                         "does not. Is it another model, one part of CLIP, or a trainer's checkpoint?") from error
    try:
        missing, unexpected = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise InputError(f"The CLIP state dict does not fit together: {error}") from error
    if lacking := [k for k in missing if "VPT" not in k] + unexpected:
        raise InputError(f"This is not a CLIP state dict in OpenAI's layout with the prompts of {dict(design)}: "
                         f"{', '.join(lacking[:5])} {'are' if len(lacking) > 1 else 'is'} missing or unexpected.")
    convert_weights(model)
    model._unrounded = {k: weights[k] for k, p in model.named_parameters()
                        if k in weights and weights[k].dtype != p.dtype == torch.float16}
    return model.eval()


def _dimensions(weights: Mapping[str, Tensor]) -> tuple:
    """CLIP's arguments, up to the design, as the shapes of a state dict tell them."""
    layers, vision_width, patch, grid, embed_dim, text_layers, width, context_length, vocabulary = shapes_of(weights)
    return (embed_dim, grid * patch, layers, vision_width, patch, context_length, vocabulary, width, width // 64,
            text_layers)
