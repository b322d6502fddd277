"""One transformer block of CLIP, batch-first, with the three forms of attention that prompts need.

Parameter names are OpenAI's (`ln_1`, `attn.in_proj_weight`, `mlp.c_fc`, ...), so their state dicts load as they are.
Source: CLIP (Radford et al., ICML 2021), clip/model.py ResidualAttentionBlock; LayerScale as in open_clip.
"""
from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), OpenAI's activation; exact GELU differs from it by up to 0.02."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class LayerNorm(nn.LayerNorm):
    """Layer norm in float32 whatever the precision around it, as OpenAI's does; returns the input's dtype."""

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == self.weight.dtype:
            return super().forward(x)
        return super().forward(x.to(self.weight.dtype)).to(x.dtype)


class LayerScale(nn.Module):
    """A learned factor per channel on a residual branch (open_clip's `ls_1`, `ls_2`)."""

    def __init__(self, width: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Attention(nn.Module):
    """Multi-head attention whose queries, keys and values may come from different places."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads, self.head_width = heads, width // heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = nn.Linear(width, width)

    def _split(self, x: Tensor) -> tuple[Tensor, ...]:
        """(..., L, k*W) -> k tensors (..., heads, L, head_width)."""
        x = x.unflatten(-1, (-1, self.heads, self.head_width))        # (..., L, k, h, d)
        return x.movedim(-4, -2).unbind(-4)                           # k times (..., h, L, d)

    def qkv(self, x: Tensor) -> tuple[Tensor, ...]:
        """(..., L, W) -> q, k, v, each (..., heads, L, head_width)."""
        return self._split(F.linear(x, self.in_proj_weight, self.in_proj_bias))

    def q(self, x: Tensor) -> Tensor:
        W = self.out_proj.in_features
        return self._split(F.linear(x, self.in_proj_weight[:W], self.in_proj_bias[:W]))[0]

    def kv(self, x: Tensor) -> tuple[Tensor, ...]:
        W = self.out_proj.in_features
        return self._split(F.linear(x, self.in_proj_weight[W:], self.in_proj_bias[W:]))

    def merge(self, x: Tensor) -> Tensor:
        """(..., heads, L, head_width) -> (..., L, W), through the output projection."""
        return self.out_proj(x.transpose(-3, -2).flatten(-2))

    def with_prefix(self, q: Tensor, k: Tensor, v: Tensor, prefix_k: Tensor, prefix_v: Tensor, mask: Tensor) -> Tensor:
        """Attention of every class's few tokens to a prefix that all classes share, and to their own past.

        The prefix's keys are never copied per class: its scores are one matrix product over all classes' queries.

        Args:
            q: (C, h, s', d) queries; k, v: (C, h, s, d) keys and values of the classes' own tokens.
            prefix_k, prefix_v: (h, p, d), seen by every query.
            mask: broadcastable to (C, 1, s', s), additive: 0 where a query may look, -inf elsewhere.
        Returns:
            (C, h, s', d).
        """
        p, scale = prefix_k.shape[-2], self.head_width ** -0.5
        shared = q.transpose(0, 1).flatten(1, 2)                      # (h, C*s', d)
        to_prefix = (shared * scale) @ prefix_k.transpose(-2, -1)     # (h, C*s', p)
        to_prefix = to_prefix.unflatten(1, (q.shape[0], -1)).transpose(0, 1)          # (C, h, s', p)
        to_own = (q * scale) @ k.transpose(-2, -1) + mask             # (C, h, s', s)
        weights = torch.cat([to_prefix, to_own], dim=-1).softmax(-1).to(v.dtype)      # (C, h, s', p+s)
        from_prefix = weights[..., :p].transpose(0, 1).flatten(1, 2) @ prefix_v       # (h, C*s', d)
        return from_prefix.unflatten(1, (q.shape[0], -1)).transpose(0, 1) + weights[..., p:] @ v


class Block(nn.Module):
    """x + attention(ln_1(x)), then x + mlp(ln_2(x)).

    Args:
        width, heads: of the residual stream and its attention.
        mlp_width: hidden width, 4 * width in OpenAI's models.
        activation: "quick_gelu" (OpenAI) or "gelu" (most of open_clip).
        layer_scale: open_clip's learned factors on both branches.
    """

    def __init__(self, width: int, heads: int, mlp_width: int, activation: str = "quick_gelu", layer_scale=False):
        super().__init__()
        self.ln_1, self.attn, self.ln_2 = LayerNorm(width), Attention(width, heads), LayerNorm(width)
        self.mlp = nn.Sequential(OrderedDict(
            c_fc=nn.Linear(width, mlp_width),
            gelu=QuickGELU() if activation == "quick_gelu" else nn.GELU(),
            c_proj=nn.Linear(mlp_width, width),
        ))
        self.ls_1, self.ls_2 = (LayerScale(width) if layer_scale else nn.Identity() for _ in range(2))

    def _finish(self, x: Tensor, attended: Tensor) -> Tensor:
        x = x + self.ls_1(self.attn.merge(attended))
        return x + self.ls_2(self.mlp(self.ln_2(x)))

    def forward(self, x: Tensor, causal: bool = False) -> Tensor:
        """(..., L, W) -> (..., L, W)."""
        q, k, v = self.attn.qkv(self.ln_1(x))
        return self._finish(x, F.scaled_dot_product_attention(q, k, v, is_causal=causal))

    def read(self, x: Tensor, index: Tensor | None = None) -> Tensor:
        """The block's output at one token per sequence; nothing else of it is computed.

        Args:
            x: (N, L, W).
            index: (N,) token to read, which sees only itself and its past; None reads token 0, which sees all.
        Returns:
            (N, 1, W).
        """
        k, v = self.attn.kv(self.ln_1(x))
        mask = None
        if index is None:
            x = x[:, :1]                                              # (N, 1, W)
        else:
            mask = torch.arange(x.shape[1], device=x.device) <= index[:, None, None, None]     # (N, 1, 1, L)
            x = x[torch.arange(len(x), device=x.device), index].unsqueeze(1)                   # (N, 1, W)
        return self._finish(x, F.scaled_dot_product_attention(self.attn.q(self.ln_1(x)), k, v, attn_mask=mask))

    def shared(self, prefix: Tensor, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """One block over a shared prefix and the classes' own tokens.

        Args:
            prefix: (p, W); x: (C, s, W); mask: additive, broadcastable to (C, 1, s, s).
        Returns:
            Both streams after the block, same shapes.
        """
        pq, pk, pv = self.attn.qkv(self.ln_1(prefix))                 # (h, p, d) each
        q, k, v = self.attn.qkv(self.ln_1(x))                         # (C, h, s, d) each
        attended = F.scaled_dot_product_attention(pq[None], pk[None], pv[None], is_causal=True)[0]
        return self._finish(prefix, attended), self._finish(x, self.attn.with_prefix(q, k, v, pk, pv, mask))

    def shared_read(self, prefix: Tensor, x: Tensor, index: Tensor) -> Tensor:
        """`shared`, but only the token `index` (C,) of each class: (C, 1, W)."""
        pk, pv = self.attn.kv(self.ln_1(prefix))                      # (h, p, d) each
        k, v = self.attn.kv(self.ln_1(x))                             # (C, h, s, d) each
        seen = torch.arange(x.shape[1], device=x.device) <= index[:, None, None, None]         # (C, 1, 1, s)
        mask = torch.zeros_like(seen, dtype=k.dtype).masked_fill(~seen, float("-inf"))
        x = x[torch.arange(len(x), device=x.device), index].unsqueeze(1)                       # (C, 1, W)
        return self._finish(x, self.attn.with_prefix(self.attn.q(self.ln_1(x)), k, v, pk, pv, mask))
