"""Whether confidences are the share of right answers.

Source: On Calibration of Modern Neural Networks (Guo et al., ICML 2017), equation 3 and section 4.2; bins of equal
size: Nguyen and O'Connor, EMNLP 2015.
"""
from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

BINS = 15


@dataclass(frozen=True)
class Bin:
    """Answers whose confidence is above `low` and at most `high` (0 is in the first): how many, and what they were.

    Attributes:
        accuracy, confidence: means, in [0, 1]; 0 where there are none.
    """

    low: float
    high: float
    count: int
    accuracy: float
    confidence: float


def reliability(confidence: Tensor, correct: Tensor, bins: int = BINS) -> list[Bin]:
    """Bins of equal width.

    Args:
        confidence: (N,) in [0, 1]. correct: (N,) bool.
    """
    confidence = confidence.double()
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64, device=confidence.device)
    place = (torch.bucketize(confidence, edges) - 1).clamp(0, bins - 1)           # (low, high]
    count = torch.bincount(place, minlength=bins)
    sums = (torch.zeros(bins, dtype=torch.float64, device=confidence.device).index_add_(0, place, values)
            for values in (correct.double(), confidence))
    accuracy, mean = (total / count.clamp(min=1) for total in sums)
    return [Bin(*row) for row in zip(edges[:-1].tolist(), edges[1:].tolist(), count.tolist(), accuracy.tolist(),
                                     mean.tolist())]


def adaptive_reliability(confidence: Tensor, correct: Tensor, bins: int = BINS) -> list[Bin]:
    """Bins of as equally many answers as can be, by confidence; of equal ones, wrong answers first."""
    confidence, correct = confidence.double(), correct.double()
    wrong_first = correct.argsort(stable=True)
    order = wrong_first[confidence[wrong_first].argsort(stable=True)]
    pairs = zip(confidence[order].tensor_split(bins), correct[order].tensor_split(bins), strict=True)
    return [Bin(own[0].item(), own[-1].item(), len(own), right.mean().item(), own.mean().item())
            for own, right in pairs if len(own)]


def ece(confidence: Tensor, correct: Tensor, bins: int = BINS) -> float:
    """Expected calibration error over bins of equal width, in [0, 1]; see `reliability`."""
    return _error(reliability(confidence, correct, bins), len(confidence))


def adaptive_ece(confidence: Tensor, correct: Tensor, bins: int = BINS) -> float:
    """The same over the bins of `adaptive_reliability`."""
    return _error(adaptive_reliability(confidence, correct, bins), len(confidence))


def _error(bins: list[Bin], total: int) -> float:
    return sum(b.count * abs(b.accuracy - b.confidence) for b in bins) / total


def best_temperature(logits: Tensor, labels: Tensor) -> float:
    """The T by which logits (N, C) are divided so that their negative log-likelihood is least, from 0.01 to 100.

    Source: Guo et al., section 4.2. The likelihood has one maximum over 1 / T, found by golden-section search.
    """
    def loss(log_t: float) -> float:
        return F.cross_entropy(logits.double() / 10 ** log_t, labels).item()

    low, high, ratio = -2.0, 2.0, (5 ** 0.5 - 1) / 2
    inner = [high - ratio * (high - low), low + ratio * (high - low)]
    values = [loss(x) for x in inner]
    while high - low > 1e-6:
        if values[0] <= values[1]:
            high, inner[1], values[1] = inner[1], inner[0], values[0]
            inner[0] = high - ratio * (high - low)
            values[0] = loss(inner[0])
        else:
            low, inner[0], values[0] = inner[0], inner[1], values[1]
            inner[1] = low + ratio * (high - low)
            values[1] = loss(inner[1])
    return 10 ** ((low + high) / 2)


def measures(confidence: Tensor, correct: Tensor, nll: Tensor) -> dict[str, float]:
    """Named as in results.json: "ece" and "adaptive_ece", percent, and "nll", the mean of (N,), nats."""
    return {"ece": 100 * ece(confidence, correct), "adaptive_ece": 100 * adaptive_ece(confidence, correct),
            "nll": nll.double().mean().item()}
