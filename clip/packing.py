"""Token sequences with a common prefix, and many short ones in a few rows, so that none is padded to the longest."""
from __future__ import annotations

import heapq
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

ROW_LENGTH = 64     # about: rows must be long enough for fast matrix products, and attention costs grow with them
MOST_KEPT = 32      # packings, about 1 MB each at the default number of text tokens encoded at once


@dataclass
class TextTokens:
    """Embedded token sequences, without positions.

    Attributes:
        embeddings: (N, L, W), each sequence's own tokens.
        eot: (N,) int64, index of the end-of-text token within `embeddings`; what follows it is ignored. It is
            best kept where it is needed: behind a prefix on the CPU, otherwise next to the embeddings.
        prefix: tokens that stand before all N sequences alike, (p, W); or several such prefixes (B, p, W), each
            followed by all N sequences; or None.
        whole_eot: (N,) int64, where `eot` is in the whole sequences, kept next to the embeddings for those who need
            them whole; None computes it.
    """

    embeddings: Tensor
    eot: Tensor
    prefix: Tensor | None = None
    whole_eot: Tensor | None = None

    def __len__(self) -> int:
        return len(self.embeddings)

    def whole(self) -> TextTokens:
        """Without a prefix: N sequences, or B * N, those of the first prefix first."""
        if self.prefix is None:
            return self
        prefix = self.prefix if self.prefix.dim() == 3 else self.prefix[None]                 # (B, p, W)
        (B, p, _), N = prefix.shape, len(self)
        own = self.embeddings.expand(B, -1, -1, -1)                                           # (B, N, L, W)
        whole = torch.cat([prefix[:, None].expand(-1, N, -1, -1), own], dim=2).flatten(0, 1)  # (B*N, p+L, W)
        return TextTokens(whole, (self.eot + p if self.whole_eot is None else self.whole_eot).repeat(B))

    def pieces(self, max_tokens: int) -> list[list[tuple[slice, TextTokens]]]:
        """Pieces of at most `max_tokens` tokens, or of one sequence: for each part of the prefixes, parts of the N."""
        if not max_tokens:
            return [[(slice(0, len(self)), self)]]
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
        return [[(slice(i, j), TextTokens(self.embeddings[i:j], self.eot[i:j], prefix)) for i, j in parts]
                for prefix in prefixes]


@dataclass(frozen=True)
class Packing:
    """Where N sequences stand in R rows of L tokens.

    Attributes:
        sequence, token: (R*L,) int64, what is at each place: a sequence, and a token of it. The few places that are
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
