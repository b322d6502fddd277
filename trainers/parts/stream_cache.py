"""Features of test images that were answered with little doubt, and with some, as a cache that grows with the stream.

Source: TDA (Karmanov et al., CVPR 2024), kdiAAA/TDA e697fb0 tda_runner.py.
"""
from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clip import InputError


@dataclass
class Votes:
    """What a part of the cache adds to the logits: alpha * exp(-beta (1 - f.K)) V.

    Attributes:
        size: features kept of each predicted class, those of the lowest entropy.
    """

    size: int
    alpha: float
    beta: float


@dataclass
class Part:
    """Attributes:
        slots: {class: [(entropy, row)]}, sorted, the older of equals first. keys: (K, D); values: (K, C).
    """

    slots: dict[int, list[tuple[float, int]]] = field(default_factory=dict)
    keys: Tensor | None = None
    values: Tensor | None = None


class StreamCache:
    """Votes for a class and against others, from the images of a stream so far.

    The images of a batch enter one after the other, each before it is answered, so batches change nothing.

    Args:
        positive, negative: votes for the predicted class, and against classes that an unsure image thought possible.
        unsure: least and most doubt of an image in the negative part, both exclusive: its entropy in nats over the
            logarithm of C to base two, at most ln 2.
        possible: least and most probability of a class that such an image votes against, both exclusive.
    """

    def __init__(self, positive: Votes, negative: Votes, unsure: tuple[float, float] = (0.2, 0.5),
                 possible: tuple[float, float] = (0.03, 1.0)):
        self.votes, self.unsure, self.possible = (positive, negative), unsure, possible
        self.reset()

    def reset(self) -> None:
        self.parts = (Part(), Part())

    def state_dict(self) -> dict:
        return {"parts": [{"slots": {c: list(kept) for c, kept in part.slots.items()}, "keys": part.keys,
                           "values": part.values} for part in self.parts]}

    def load_state_dict(self, state: dict) -> None:
        self.parts = tuple(Part({c: [tuple(slot) for slot in kept] for c, kept in part["slots"].items()}, part["keys"],
                                part["values"]) for part in state["parts"])

    def logits(self, features: Tensor, predicted: Tensor, entropies: Tensor, probabilities: Tensor) -> Tensor:
        """What the cache adds to the logits of B images, which enter it: (B, C).

        Args:
            features: (B, D). predicted: (B,) int64, classes. entropies: (B,) nats. probabilities: (B, C).
        Raises:
            InputError: an entropy that is not finite; nothing has entered.
        """
        C = probabilities.shape[1]
        labels, doubts = predicted.tolist(), entropies.tolist()
        if not all(map(math.isfinite, doubts)):
            raise InputError("An image whose entropy is not finite cannot enter the cache: what was loaded is not "
                             "finite, or overflows in half precision. Compute in fp32.")
        low, high = self.unsure
        unsure = [low < doubt / math.log2(C) < high for doubt in doubts]
        least, most = self.possible
        values = (F.one_hot(predicted, C).to(features.dtype),
                  ((probabilities > least) & (probabilities < most)).to(features.dtype))
        found = [_enter(part, votes, features, value, labels, doubts, enters) for part, votes, value, enters in
                 zip(self.parts, self.votes, values, ([True] * len(labels), unsure), strict=True)]
        return found[0] - found[1]


def _enter(part: Part, votes: Votes, features: Tensor, values: Tensor, labels: list[int], doubts: list[float],
           enters: list[bool]) -> Tensor:
    """(B, C) votes for each image, of what the part held when it had just entered."""
    device, old = features.device, 0 if part.keys is None else len(part.keys)
    keys, values = (new if kept is None else torch.cat([kept.to(device), new]) for kept, new in
                    ((part.keys, features), (part.values, values)))                       # (K + B, D), (K + B, C)
    here = np.zeros(len(keys), dtype=bool)
    here[:old] = True
    then = np.empty((len(labels), len(keys)), dtype=bool)
    for i, (label, doubt, is_in) in enumerate(zip(labels, doubts, enters, strict=True)):
        kept = part.slots.setdefault(label, []) if is_in else []
        if is_in and (len(kept) < votes.size or doubt < kept[-1][0]):
            if len(kept) == votes.size:
                here[kept.pop()[1]] = False
            kept.insert(bisect_right(kept, doubt, key=lambda slot: slot[0]), (doubt, old + i))
            here[old + i] = True
        then[i] = here
    weights = torch.exp(-votes.beta * (1 - features @ keys.t())) * torch.from_numpy(then).to(device)  # (B, K + B)
    rows = here.nonzero()[0]
    renumbered = {row: i for i, row in enumerate(rows.tolist())}
    part.slots = {label: [(doubt, renumbered[row]) for doubt, row in kept] for label, kept in part.slots.items()}
    rows = torch.from_numpy(rows).to(device)
    part.keys, part.values = keys[rows], values[rows]
    return votes.alpha * weights @ values
