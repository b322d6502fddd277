"""Many short token sequences in a few rows of equal length, so that none is padded to the longest."""
from __future__ import annotations

import heapq
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

ROW_LENGTH = 64     # about: rows must be long enough for fast matrix products, and attention costs grow with them
MOST_KEPT = 32      # packings, about 1 MB each at the default number of text tokens encoded at once


@dataclass(frozen=True)
class Packing:
    """Where N sequences stand in R rows of L tokens.

    Attributes:
        sequence, token: (R*L,) int64, what stands at each place: a sequence, and a token of it. The few places that are
            left over repeat token 0 of sequence 0; no other place looks at them.
        mask: (R, L, L) bool, True where a place (second index) may look at another one (third): at its own sequence's
            past and at itself.
        last: (N,) int64, the place of each sequence's last token, in R*L.
    """

    sequence: Tensor
    token: Tensor
    mask: Tensor
    last: Tensor


@lru_cache(maxsize=MOST_KEPT)
def pack(lengths: tuple[int, ...], device: torch.device | str = "cpu", row_length: int = ROW_LENGTH) -> Packing:
    """Long sequences first, each into the emptiest row: rows differ by less than the shortest sequence put in last.

    Args:
        lengths: of N sequences, at least 1 each.
        device: of the result.
        row_length: about how many tokens a row holds; a longer sequence makes all rows longer.
    """
    rows = min(len(lengths), -(-sum(lengths) // row_length))
    fill = [(0, row) for row in range(rows)]
    start, owners = {}, [[] for _ in range(rows)]
    for n in sorted(range(len(lengths)), key=lambda n: -lengths[n]):
        used, row = heapq.heappop(fill)
        start[n] = row, used
        owners[row] += [(n, t) for t in range(lengths[n])]
        heapq.heappush(fill, (used + lengths[n], row))
    L = max(map(len, owners))
    places = torch.tensor([row + [(-1, 0)] * (L - len(row)) for row in owners])           # (R, L, 2)
    sequence, token = places.unbind(-1)                                                     # (R, L)
    same = sequence[:, :, None] == sequence[:, None, :]                                     # (R, L, L)
    mask = same & (token[:, None, :] <= token[:, :, None])                                  # (R, L, L)
    last = torch.tensor([start[n][0] * L + start[n][1] + length - 1 for n, length in enumerate(lengths)])
    return Packing(sequence.clamp(min=0).flatten().to(device), token.flatten().to(device), mask.to(device),
                   last.to(device))
