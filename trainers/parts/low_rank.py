"""Low-rank updates of the attention's products: added to frozen weights, of which no copy is made.

Source: LoRA (Hu et al., ICLR 2022) as CLIP-LoRA (Zanella and Ben Ayed, CVPR workshops 2024) uses it, loralib/: q, k and
v have an A and a B each, the factor is alpha / sqrt(r), and dropout acts on what enters the update alone.
"""
from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip import InputError

_SITES = {"qkv": "qkv", "out": "o"}                 # products of a block: the projections in their output


def blocks_at(position: str, depth: int) -> list[int]:
    """Which of `depth` blocks a position names; the authors' blocks in a tower of 12, their halves in one of 24.

    Raises:
        InputError: an unknown position, or one that names no block of this tower.
    """
    half = depth // 2
    named = {"all": (0, depth), "bottom": (0, 4), "mid": (4, 8), "up": (depth - 4, depth), "half-bottom": (0, half),
             "half-up": (half, depth), **{f"top{n}": (depth - n, depth) for n in (1, 2, 3)}}
    if position not in named:
        raise InputError(f"The position of low-rank updates must be one of {', '.join(named)}, got {position!r}.")
    first, end = named[position]
    if not (blocks := list(range(max(first, 0), min(end, depth)))):
        raise InputError(f"The position {position!r} names blocks {first} to {end - 1}; this tower has {depth}.")
    return blocks


class LowRank(nn.Module):
    """A tuner of either tower: adds alpha / sqrt(r) * B A x to products of x in the attention; zero at first.

    Dropout draws from torch's global stream, a mask for each product and token; text sequences share none, so in
    training with dropout each passes the tower whole.

    Args:
        width, depth: of the tower.
        rank: r, from 1 to `width`. alpha: of the factor.
        projections: letters of q, k, v and o (the output projection).
        position: of the blocks, see `blocks_at`.
        dropout: share of x's entries that the update does not see, in training.
    Attributes:
        places: (block, projection) of each of the n updates.
        A: (n, r, W), uniform in +-1/sqrt(W) at first, drawn from torch's global stream. B: (n, W, r), zero at first.
    Raises:
        InputError: an argument outside its range.
    """

    def __init__(self, width: int, depth: int, rank: int = 2, alpha: float = 1.0, projections: str = "qkv",
                 position: str = "all", dropout: float = 0.0):
        super().__init__()
        if not 1 <= rank <= width:
            raise InputError(f"The rank of low-rank updates must be 1 to {width}, the tower's width, got {rank}.")
        if not projections or set(projections) - set("qkvo") or len(set(projections)) < len(projections):
            raise InputError(f"Low-rank updates act on some of q, k, v and o, each named once, got {projections!r}.")
        if not 0 <= dropout < 1:
            raise InputError(f"Dropout must be at least 0 and below 1, got {dropout}.")
        self.places = [(block, p) for block in blocks_at(position, depth) for p in "qkvo" if p in projections]
        self._row = {place: row for row, place in enumerate(self.places)}
        self.scale, self.dropout = alpha / math.sqrt(rank), dropout
        self.A = nn.Parameter(torch.empty(len(self.places), rank, width).uniform_(-1, 1) / math.sqrt(width))
        self.B = nn.Parameter(torch.zeros(len(self.places), width, rank))

    @property
    def whole_sequence(self) -> bool:
        """See `clip.tuning.Tuner`."""
        return self.training and self.dropout > 0

    def project(self, block: int, site: str, x: Tensor, y: Tensor) -> Tensor:
        """See `clip.tuning.Tuner`."""
        rows = [self._row.get((block, p)) for p in _SITES.get(site, "")]
        if all(row is None for row in rows):
            return y
        return torch.cat([part if row is None else part + self._update(row, x)
                          for row, part in zip(rows, y.chunk(len(rows), dim=-1), strict=True)], dim=-1)

    def _update(self, row: int, x: Tensor) -> Tensor:
        x = F.dropout(x, self.dropout, self.training)
        return F.linear(F.linear(x, self.A[row]), self.B[row] * self.scale)

    @torch.no_grad()
    def merge_into(self, blocks: Sequence[nn.Module]) -> None:
        """Add the updates to the weights of a tower's blocks, which then give what they gave with this tuner."""
        for row, (block, p) in enumerate(self.places):
            attention, width = blocks[block].attn, self.A.shape[2]
            weight = attention.out_proj.weight if p == "o" else \
                attention.in_proj_weight["qkv".index(p) * width:("qkv".index(p) + 1) * width]
            weight += self.scale * self.B[row] @ self.A[row]

    def saved_names(self, tower: str = "") -> dict[str, list[str]]:
        """Names of the rows of A and B in the authors' modules; `tower` is "visual." for the image tower's."""
        modules = [f"{tower}transformer.resblocks.{block}.attn.{'' if p == 'o' else p + '_'}proj"
                   for block, p in self.places]
        return {which: [f"{module}.w_lora_{which}" for module in modules] for which in "AB"}
