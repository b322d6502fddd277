"""CLIP as prompt-learning code runs it today: every token, every block, the published layout.

Sequence-first `nn.MultiheadAttention`, an additive causal mask over 77 tokens, the whole last block, and features read
at the end. Source: CLIP (Radford et al., ICML 2021), clip/model.py; visual tokens as in DAPT (Cho et al., ICCV 2023),
trainers/dapt.py. Only the weights are shared with `clip/`, so nothing made fast there helps here.
"""
from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from clip import FrozenCLIP

Enter = Callable[[int, Tensor], Tensor]


class QuickGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class LayerNorm(nn.LayerNorm):
    """In float32, back to the input's type."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float()).to(x.dtype)


class Block(nn.Module):
    """Residual attention block over (L, N, W)."""

    def __init__(self, width: int, heads: int, hidden: int, quick: bool, mask: Tensor | None):
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads)
        self.ln_1, self.ln_2 = LayerNorm(width), LayerNorm(width)
        self.mlp = nn.Sequential(OrderedDict(c_fc=nn.Linear(width, hidden), gelu=QuickGELU() if quick else nn.GELU(),
                                             c_proj=nn.Linear(hidden, width)))
        self.mask = mask

    def forward(self, x: Tensor) -> Tensor:
        y = self.ln_1(x)
        mask = None if self.mask is None else self.mask.to(x.dtype)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))


def blocks_of(tower: nn.Module, mask: Tensor | None) -> nn.Sequential:
    """The same blocks, plainly, on the weights of a tower of `clip/`."""
    made = []
    for block in tower.resblocks:
        quick = type(block.mlp.gelu).__name__ == "QuickGELU"
        with torch.device("meta"):
            plain = Block(block.attn.out_proj.in_features, block.attn.heads, block.mlp.c_fc.out_features, quick, None)
        plain.load_state_dict(block.state_dict(), assign=True)
        plain.mask = mask
        made.append(plain)
    return nn.Sequential(*made).requires_grad_(False).eval()


def as_it_is(block: int, x: Tensor) -> Tensor:
    """What enters a block (L, N, W), unchanged; block -1 is before `ln_pre`."""
    return x


class FieldCLIP:
    """Both towers over the weights of `clip`; a ResNet is run as it is, nothing in it can be left out.

    Attributes:
        dtype: of the matrices, and of the activations between them.
        scale: () factor on cosines.
    """

    def __init__(self, clip: FrozenCLIP):
        self.clip, self.scale = clip, clip.scale
        self.dtype = clip.transformer.resblocks[0].attn.in_proj_weight.dtype
        L = clip.context_length
        mask = torch.full((L, L), float("-inf"), device=clip.logit_scale.device).triu(1)
        self.text_blocks = blocks_of(clip.transformer, mask)
        self.image_blocks = blocks_of(clip.visual.transformer, None) if clip.vision_width else None

    def encode_text(self, prompts: Tensor, eot: Tensor, enter: Enter = as_it_is) -> Tensor:
        """Embedded prompts (N, 77, W), read at `eot` (N,): (N, D), unit norm. `enter`: see `as_it_is`."""
        clip = self.clip
        x = (prompts + clip.positional_embedding).to(self.dtype).permute(1, 0, 2)             # (77, N, W)
        for i, block in enumerate(self.text_blocks):
            x = block(enter(i, x))
        x = plain_norm(clip.ln_final, x.permute(1, 0, 2))                                     # (N, L, W)
        return unit(x[torch.arange(len(x), device=x.device), eot] @ clip.text_projection.to(x.dtype))

    def encode_image(self, images: Tensor, tokens: Tensor | None = None, every: bool = False) -> Tensor:
        """(B, 3, H, W) -> (B, D), unit norm; `tokens` (n, W) stand between class token and patches, after `ln_pre`.

        With `every` (B, 1+P, D), all tokens (of a ResNet its attention pool everywhere).
        """
        visual = self.clip.visual
        if self.image_blocks is None:
            with torch.autocast(images.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32):
                return unit(visual(images.to(self.dtype), want="tokens" if every else "pooled").to(self.dtype))
        x = self.image_tokens(images, as_it_is if tokens is None else behind_first({0: tokens}),
                              slice(None) if every else 0)
        return unit(x @ visual.proj.to(x.dtype))

    def image_tokens(self, images: Tensor, enter: Enter, read: slice | int = slice(None)) -> Tensor:
        """(B, 3, H, W) -> (B, L, W), or the one token `read` (B, W), after the last norm. `enter`: see `as_it_is`."""
        visual, images = self.clip.visual, images.to(self.dtype)
        x = visual.conv1(images).flatten(2).permute(0, 2, 1)                                  # (B, P, W)
        x = torch.cat([visual.class_embedding.to(x.dtype).expand(len(x), 1, -1), x], dim=1)   # (B, 1+P, W)
        x = enter(-1, (x + visual.positional_embedding.to(x.dtype)).permute(1, 0, 2))         # (L, B, W)
        x = plain_norm(visual.ln_pre, x)
        for i, block in enumerate(self.image_blocks):
            x = block(enter(i, x))
        return plain_norm(visual.ln_post, x.permute(1, 0, 2)[:, read])


def behind_first(tokens: Mapping[int, Tensor], joins: int = 0) -> Enter:
    """Tokens (n, W), or (n, N, W), behind the first one of a sequence, by the block that they enter.

    Args:
        joins: the block at which they lengthen the sequence; at others they take the place of the last ones.
    """
    def enter(block: int, x: Tensor) -> Tensor:
        if block not in tokens:
            return x
        own = tokens[block]
        own = (own if own.dim() == 3 else own[:, None].expand(-1, x.shape[1], -1)).to(x.dtype)    # (n, N, W)
        return torch.cat([x[:1], own, x[1 if block == joins else 1 + len(own):]])

    return enter


def unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True)


def plain_norm(norm: nn.Module, x: Tensor) -> Tensor:
    """Layer norm with the weights of `norm`, in float32, back to the type of x; none where the tower has none."""
    if isinstance(norm, nn.Identity):
        return x
    return nn.functional.layer_norm(x.float(), norm.normalized_shape, norm.weight, norm.bias, norm.eps).to(x.dtype)
