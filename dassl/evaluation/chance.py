"""Whether an accuracy is more than guessing gives."""
from __future__ import annotations

import torch

LUCK = 0.01                         # probability with which guessing may reach an accuracy that counts as chance


def reachable(total: int, num_classes: int) -> int:
    """The most right answers that guessing among `num_classes` reaches on `total` images with probability > LUCK."""
    k = torch.arange(total + 1, dtype=torch.float64)                          # right answers
    n, p = torch.tensor(float(total), dtype=torch.float64), 1 / num_classes
    ways = torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)
    log_p, log_q = torch.tensor([p, 1 - p], dtype=torch.float64).log()
    at_least = (ways + k * log_p + (n - k) * log_q).exp().flip(0).cumsum(0).flip(0)       # P(X >= k)
    return int((at_least > LUCK).nonzero().max())


def story_of_chance(accuracy: float, total: int, num_classes: int) -> str:
    """A paragraph for an accuracy (percent) that guessing reaches too, or ""; one class leaves nothing to guess."""
    correct = round(accuracy * total / 100)
    if num_classes < 2 or not total or correct > (most := reachable(total, num_classes)):
        return ""
    return (f"This accuracy is at chance: {accuracy:.1f}% of {total:,} images, where guessing among {num_classes:,} "
            f"classes gives {100 / num_classes:.1f}% and by luck up to {100 * most / total:.1f}%. This test sees "
            "nothing learned: check that class names belong to their labels, then the learning rate and the weights.")
