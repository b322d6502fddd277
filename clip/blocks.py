"""One transformer block of CLIP, batch-first, with the three forms of attention that prompts need.

Parameter names are OpenAI's (`ln_1`, `attn.in_proj_weight`, `mlp.c_fc`, ...), so their state dicts load as they are.
Source: CLIP (Radford et al., ICML 2021), clip/model.py ResidualAttentionBlock; LayerScale as in open_clip.
"""
from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .products import Linear, linear

AfterProduct = Callable[[str, Tensor, Tensor], Tensor]     # (site, x, y) -> what is used instead of y
Places = Tensor | slice | list[int]


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), OpenAI's activation; exact GELU differs from it by up to 0.02."""

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(1.702 * x).div_(1.702)      # the same; for the gradient one tensor is kept instead of two


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
    """Multi-head attention whose queries, keys and values may come from different places.

    `project` in its methods is called with (site, x, y) after each product; see `clip.tuning.Tuner.project`.
    """

    onednn = False                          # as in products.Linear

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads, self.head_width = heads, width // heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = Linear(width, width)

    def _split(self, x: Tensor) -> tuple[Tensor, ...]:
        """(..., L, k*W) -> k tensors (..., heads, L, head_width)."""
        x = x.unflatten(-1, (-1, self.heads, self.head_width))        # (..., L, k, h, d)
        return x.movedim(-4, -2).unbind(-4)                           # k times (..., h, L, d)

    def qkv(self, x: Tensor, project: AfterProduct | None = None) -> tuple[Tensor, ...]:
        """(..., L, W) -> q, k, v, each (..., heads, L, head_width)."""
        y = linear(x, self.in_proj_weight, self.in_proj_bias, self.onednn)
        return self._split(y if project is None else project("qkv", x, y))

    def q(self, x: Tensor) -> Tensor:
        W = self.out_proj.in_features
        return self._split(linear(x, self.in_proj_weight[:W], self.in_proj_bias[:W], self.onednn))[0]

    def kv(self, x: Tensor) -> tuple[Tensor, ...]:
        W = self.out_proj.in_features
        return self._split(linear(x, self.in_proj_weight[W:], self.in_proj_bias[W:], self.onednn))

    def merge(self, x: Tensor, project: AfterProduct | None = None) -> Tensor:
        """(..., heads, L, head_width) -> (..., L, W), through the output projection."""
        x = x.transpose(-3, -2).flatten(-2)
        y = self.out_proj(x)
        return y if project is None else project("out", x, y)

    def behind(self, prefix: tuple[Tensor, Tensor] | None, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """k, v (N, h, L, d) behind the keys and values (N, p, W) of a prefix, if there is one."""
        if prefix is None:
            return k, v
        keys, values = (self._split(part.to(k.dtype))[0] for part in prefix)
        return torch.cat([keys, k], dim=-2), torch.cat([values, v], dim=-2)

    def after_prefix(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """Attention of a causal prefix, and of rows of tokens that stand behind it and do not see each other.

        Args:
            q, k, v: (B, h, p + R*L, d), the prefix first.
            mask: (R, L, p + L) bool: what a token of a row sees of the prefix and of its own row.
        Returns:
            (B, h, p + R*L, d).
        """
        R, L, p = *mask.shape[:2], mask.shape[2] - mask.shape[1]
        (prefix_q, q), (prefix_k, k), (prefix_v, v) = (x.split([p, R * L], dim=2) for x in (q, k, v))
        # Attention keeps what it is given for the gradient: copies, as a view would keep all of q, k and v.
        prefix_q, prefix_k, prefix_v = (x.contiguous() for x in (prefix_q, prefix_k, prefix_v))
        prefix = F.scaled_dot_product_attention(prefix_q, prefix_k, prefix_v, is_causal=True)      # (B, h, p, d)
        q, k, v = (x.unflatten(2, (R, L)) for x in (q, k, v))                                      # (B, h, R, L, d)
        k = torch.cat([prefix_k.unsqueeze(2).expand(-1, -1, R, -1, -1), k], dim=3)                 # (B, h, R, p+L, d)
        v = torch.cat([prefix_v.unsqueeze(2).expand(-1, -1, R, -1, -1), v], dim=3)                 # (B, h, R, p+L, d)
        q, k, v = (x.flatten(0, 1).contiguous() for x in (q, k, v))                                # (B*h, R, ..., d)
        rows = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return torch.cat([prefix, rows.unflatten(0, prefix.shape[:2]).flatten(2, 3)], dim=2)


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
            c_fc=Linear(width, mlp_width),
            gelu=QuickGELU() if activation == "quick_gelu" else nn.GELU(),
            c_proj=Linear(mlp_width, width),
        ))
        self.ls_1, self.ls_2 = (LayerScale(width) if layer_scale else nn.Identity() for _ in range(2))

    def _finish(self, x: Tensor, attended: Tensor, project: AfterProduct | None = None) -> Tensor:
        x = x + self.ls_1(self.attn.merge(attended, project))
        if project is None:
            return x + self.ls_2(self.mlp(self.ln_2(x)))
        h = self.ln_2(x := project("attended", x, x))
        fc = self.mlp.gelu(project("fc", h, self.mlp.c_fc(h)))
        return x + self.ls_2(project("proj", fc, self.mlp.c_proj(fc)))

    def forward(self, x: Tensor, causal: bool = False, project: AfterProduct | None = None,
                prefix: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """(..., L, W) -> (..., L, W).

        Args:
            prefix: keys and values (N, p, W) in front of those of x (N, L, W); with `causal` off.
        """
        q, k, v = self.attn.qkv(self.ln_1(x), project)
        k, v = self.attn.behind(prefix, k, v)
        return self._finish(x, F.scaled_dot_product_attention(q, k, v, is_causal=causal), project)

    def read(self, x: Tensor, index: Places, causal: bool = False, project: AfterProduct | None = None,
             prefix: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """The block's output at some tokens of each sequence; nothing else of it is computed.

        Args:
            x: (N, L, W).
            index: tokens to read, (N, k) or the same ones of every row. causal: each sees only itself and its past;
                otherwise all. prefix: as in `forward`.
        Returns:
            (N, k, W).
        """
        h = self.ln_1(x)
        if project is None:
            q, (k, v) = self.attn.q(take(h, index)), self.attn.kv(h)
        else:
            q, k, v = self.attn.qkv(h, project)
            q = take(q.transpose(-3, -2), index).transpose(-3, -2)                             # (N, h, k, d)
        k, v = self.attn.behind(prefix, k, v)
        mask = None
        if causal:
            every = torch.arange(x.shape[1], device=x.device)                                  # (L,)
            read = index if isinstance(index, Tensor) else take(every[None], index)            # (N, k) or (1, k)
            mask = every <= read[:, None, :, None]                                             # (N, 1, k, L)
        return self._finish(take(x, index), F.scaled_dot_product_attention(q, k, v, attn_mask=mask), project)

    def beside(self, readers: Tensor, x: Tensor, sees: Tensor | None = None,
               project: AfterProduct | None = None) -> Tensor:
        """The block's output at tokens (N, k, W) that attend to x (N, L, W) alone, not to each other nor to themselves.

        Args:
            sees: (N, L) bool, which tokens of x they attend to; None: all.
        """
        h, source = self.ln_1(readers), self.ln_1(x)
        if project is None:
            q, (k, v) = self.attn.q(h), self.attn.kv(source)
        else:
            (q, _, _), (_, k, v) = self.attn.qkv(h, project), self.attn.qkv(source, project)
        mask = None if sees is None else sees[:, None, None]                                   # (N, 1, 1, L)
        return self._finish(readers, F.scaled_dot_product_attention(q, k, v, attn_mask=mask), project)

    def after_prefix(self, x: Tensor, mask: Tensor, places: Tensor | None = None,
                     project: AfterProduct | None = None) -> Tensor:
        """One block over a prefix and rows of tokens behind it, see `Attention.after_prefix`.

        Args:
            x: (B, p + R*L, W); mask: (R, L, p + L) bool.
            places: (N,) the only tokens whose output is wanted; None: all.
        Returns:
            (B, p + R*L, W), or (B, N, W).
        """
        attended = self.attn.after_prefix(*self.attn.qkv(self.ln_1(x), project), mask)
        if places is not None:
            x, attended = x[:, places], attended[:, :, places]
        return self._finish(x, attended, project)


def take(x: Tensor, index: Places) -> Tensor:
    """(N, L, ...) at places of every row, or at index (N, k) -> (N, k, ...)."""
    if isinstance(index, slice):
        return x[:, index]
    if isinstance(index, list):
        return torch.stack([x[:, place] for place in index], dim=1)
    return x[torch.arange(len(x), device=x.device)[:, None], index]
