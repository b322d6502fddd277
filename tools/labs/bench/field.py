"""CLIP as prompt-learning code runs it today: every token, every block, the published layout.

Sequence-first `nn.MultiheadAttention`, an additive causal mask over 77 tokens, the whole last block, and features read
at the end. Source: CLIP (Radford et al., ICML 2021), clip/model.py; visual tokens as in DAPT (Cho et al., ICCV 2023),
trainers/dapt.py. Only the weights are shared with `clip/`, so nothing made fast there helps here.
"""
from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from clip import FrozenCLIP


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

    def encode_text(self, prompts: Tensor, eot: Tensor) -> Tensor:
        """Embedded prompts (N, 77, W), read at `eot` (N,): (N, D), unit norm."""
        clip = self.clip
        x = (prompts + clip.positional_embedding).to(self.dtype)                              # (N, 77, W)
        x = self.text_blocks(x.permute(1, 0, 2)).permute(1, 0, 2)
        x = plain_norm(clip.ln_final, x)
        x = x[torch.arange(len(x), device=x.device), eot] @ clip.text_projection.to(x.dtype)  # (N, D)
        return x / x.norm(dim=-1, keepdim=True)

    def encode_image(self, images: Tensor, tokens: Tensor | None = None, every: bool = False) -> Tensor:
        """(B, 3, H, W) -> (B, D), unit norm; `tokens` (n, W) stand between class token and patches, after `ln_pre`.

        With `every` (B, 1+P, D), all tokens (of a ResNet its attention pool everywhere).
        """
        visual, B, images = self.clip.visual, len(images), images.to(self.dtype)
        if self.image_blocks is None:
            with torch.autocast(images.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32):
                x = visual(images, want="tokens" if every else "pooled").to(self.dtype)
            return x / x.norm(dim=-1, keepdim=True)
        x = visual.conv1(images).flatten(2).permute(0, 2, 1)                                  # (B, P, W)
        x = torch.cat([visual.class_embedding.to(x.dtype).expand(B, 1, -1), x], dim=1)        # (B, 1+P, W)
        x = x + visual.positional_embedding.to(x.dtype)
        x = plain_norm(visual.ln_pre, x)
        if tokens is not None:
            x = torch.cat([x[:, :1], tokens.to(x.dtype).expand(B, -1, -1), x[:, 1:]], dim=1)  # (B, 1+n+P, W)
        x = self.image_blocks(x.permute(1, 0, 2)).permute(1, 0, 2)
        x = plain_norm(visual.ln_post, x if every else x[:, 0]) @ visual.proj.to(x.dtype)                     # (B, D)
        return x / x.norm(dim=-1, keepdim=True)


def plain_norm(norm: nn.Module, x: Tensor) -> Tensor:
    """Layer norm with the weights of `norm`, in float32, back to the type of x; none where the tower has none."""
    if isinstance(norm, nn.Identity):
        return x
    return nn.functional.layer_norm(x.float(), norm.normalized_shape, norm.weight, norm.bias, norm.eps).to(x.dtype)
