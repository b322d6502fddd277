"""CLIP as prompt-learning code runs it today: every token, every block, the published layout.

Sequence-first `nn.MultiheadAttention`, an additive causal mask over 77 tokens, the whole last block, features read at
the end, and CoCoOp's images one after the other. Source: CLIP (Radford et al., ICML 2021), clip/model.py; what CoOp,
MaPLe, PromptSRC, TCP, MMRL and DAPT change in it are tokens that enter blocks. Only the weights are shared with the
towers of `clip/`, so nothing made fast there helps here; prompts, heads and losses are ours on both sides.
"""
from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip import FrozenCLIP
from clip.blocks import take
from clip.packing import TextTokens
from clip.tuning import Tuners
from clip.vision import VisionTransformer, Want, places

UPSTREAM = 1e-3                         # the fixed gradient of text features that are encoded in pieces


class QuickGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class LayerNorm(nn.LayerNorm):
    """In float32, back to the input's type."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float()).to(x.dtype)


class Block(nn.Module):
    """Residual attention block over (L, N, W)."""

    def __init__(self, width: int, heads: int, hidden: int, quick: bool):
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads)
        self.ln_1, self.ln_2 = LayerNorm(width), LayerNorm(width)
        self.mlp = nn.Sequential(OrderedDict(c_fc=nn.Linear(width, hidden), gelu=QuickGELU() if quick else nn.GELU(),
                                             c_proj=nn.Linear(hidden, width)))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=None if mask is None else mask.to(x.dtype))[0]
        return x + self.mlp(self.ln_2(x))


def blocks_of(tower: nn.Module) -> nn.ModuleList:
    """The same blocks, plainly, on the weights of a tower of `clip/`."""
    made = nn.ModuleList()
    for block in tower.resblocks:
        quick = type(block.mlp.gelu).__name__ == "QuickGELU"
        with torch.device("meta"):
            plain = Block(block.attn.out_proj.in_features, block.attn.heads, block.mlp.c_fc.out_features, quick)
        plain.load_state_dict(block.state_dict(), assign=True)
        made.append(plain)
    return made.requires_grad_(False).eval()


def make_plain(clip: FrozenCLIP) -> None:
    """Have towers pass their tokens as published code does; a ResNet stays as it is, nothing in it can be left out."""
    clip.__class__, clip.max_tokens = _PlainCLIP, 0
    clip.transformer.resblocks = blocks_of(clip.transformer)
    if clip.vision_width is not None:
        clip.visual.__class__ = _PlainVision
        clip.visual.transformer.resblocks = blocks_of(clip.visual.transformer)


class _PlainCLIP(FrozenCLIP):
    """Attributes:
        piece: text sequences that are encoded at once, 0 for all of them. In pieces, each one's backward pass follows
            its forward pass with a fixed upstream gradient: the same work in the memory of one piece, with other
            gradients.
    """

    piece = 0

    def _encode_text(self, tokens: TextTokens, tuners: Tuners, want: Want) -> Tensor:
        whole, n = tokens.whole(), len(tokens)
        x, eot = whole.embeddings, whole.eot.to(whole.embeddings.device)
        x = F.pad(x, (0, 0, 0, self.context_length - x.shape[1]))                             # (R*N, 77, W)

        def encode(rows: slice, x: Tensor) -> Tensor:
            return self._pass(x, eot[rows], tuners.select(rows))

        if self.piece and torch.is_grad_enabled():
            features = _InPieces.apply(x, encode, self.piece)
        else:
            features = torch.cat([encode(slice(first, first + n), x[first:first + n]) for first in range(0, len(x), n)])
        several = tokens.prefix is not None and tokens.prefix.dim() == 3
        return features.unflatten(0, (-1, n)) if several else features

    def _pass(self, x: Tensor, eot: Tensor, tuners: Tuners) -> Tensor:
        """(N, 77, W), read at `eot` (N,) -> (N, D)."""
        with torch.autocast(x.device.type, enabled=False):
            x = (x + self.positional_embedding).to(self.matrix_dtype)
            L, mask = self.context_length, None
            for i, block in enumerate(self.transformer.resblocks):
                x = tuners.enter(i, x)
                if mask is None or x.shape[1] != L:                     # a tuner has made the sequences longer
                    eot, L = eot + x.shape[1] - L, x.shape[1]
                    mask = torch.full((L, L), float("-inf"), device=x.device).triu(1)
                x = block(x.transpose(0, 1), mask).transpose(0, 1)
            x = self.ln_final(x)
            return x[torch.arange(len(x), device=x.device), eot] @ self.text_projection.to(x.dtype)


class _PlainVision(VisionTransformer):
    def forward(self, images: Tensor, tuners: Tuners | None = None, want: Want = "pooled",
                joint: bool = True) -> Tensor:
        tuners = tuners or Tuners(None)
        with torch.autocast(images.device.type, enabled=False):
            x = self.conv1(images.to(self.conv1.weight.dtype)).flatten(2).transpose(1, 2)     # (B, P, W)
            x = torch.cat([self.class_embedding.to(x.dtype).expand(len(x), 1, -1), x], dim=1)
            x = self.ln_pre(tuners.enter(-1, x + self.positional_embedding.to(x.dtype)))      # (B, L, W)
            for i, block in enumerate(self.transformer.resblocks):
                x = block(tuners.enter(i, x).transpose(0, 1)).transpose(0, 1)
            x = self.ln_post(take(x, places(want, x)))                                        # (B, k, W)
            x = x @ self.proj.to(x.dtype) if joint else x
        return x.squeeze(1) if want == "pooled" else x


class _InPieces(torch.autograd.Function):
    """See `_PlainCLIP`."""

    @staticmethod
    def forward(ctx, x: Tensor, encode: Callable[[slice, Tensor], Tensor], piece: int) -> Tensor:
        leaf, found = x.detach().requires_grad_(), []
        with torch.enable_grad():
            for first in range(0, len(x), piece):
                rows = slice(first, first + piece)
                features = encode(rows, leaf[rows])
                features.backward(torch.full_like(features, UPSTREAM))
                found.append(features.detach())
        ctx.save_for_backward(leaf.grad)
        return torch.cat(found)

    @staticmethod
    def backward(ctx, _: Tensor) -> tuple[Tensor, None, None]:
        return *ctx.saved_tensors, None, None
