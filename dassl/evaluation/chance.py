"""Whether an accuracy is more than guessing gives, as far as the number of images tells."""
from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

LUCK = 0.01                         # probability with which guessing may reach an accuracy that counts as chance
ABOVE, CHANCE, BELOW, TOO_FEW = "above", "chance", "below", "too few images"


def versus_guessing(correct: int, total: int, num_classes: int) -> str:
    """ABOVE, CHANCE or BELOW what guessing gives, or TOO_FEW images to tell; ABOVE for one class."""
    if num_classes < 2 or not total:
        return ABOVE
    most = reachable(total, num_classes)
    if most == total:
        return TOO_FEW
    if correct > most:
        return ABOVE
    return BELOW if _probabilities(total, num_classes)[:correct + 1].sum() <= LUCK else CHANCE


def reachable(total: int, num_classes: int) -> int:
    """The most right answers that guessing among `num_classes` reaches on `total` images with probability > LUCK."""
    at_least = _probabilities(total, num_classes).flip(0).cumsum(0).flip(0)                # P(X >= k)
    return int((at_least > LUCK).nonzero().max())


@lru_cache(maxsize=4)
def _probabilities(total: int, num_classes: int) -> Tensor:
    """(total + 1,) float64: of 0, 1 ... right answers."""
    right = torch.arange(total + 1, dtype=torch.float64)
    return torch.distributions.Binomial(total, torch.tensor(1 / num_classes, dtype=torch.float64)).log_prob(right).exp()


def explain(verdict: str, correct: int, total: int, num_classes: int) -> str:
    """A paragraph for a verdict of `versus_guessing`; "" for ABOVE."""
    guessing = f"guessing among {num_classes:,} classes gives {100 / num_classes:.1f}%" if num_classes else ""
    found = f"{100 * correct / total:.1f}% of {total:,} images" if total else ""
    if verdict == TOO_FEW:
        luck = _probabilities(total, num_classes)[-1].item()
        return (f"{found}: too few images to tell this from guessing, which gets all {total:,} right in "
                f"{100 * luck:.0f} of 100 tests. Test on more images.")
    if verdict == BELOW:
        return (f"This accuracy is below chance: {found}, where {guessing}. Labels may be permuted: "
                "check that class names belong to their labels.")
    if verdict == CHANCE:
        return (f"This accuracy is at chance: {found}, where {guessing} and by luck up to "
                f"{100 * reachable(total, num_classes) / total:.1f}%. The test shows nothing learned: check that class "
                "names belong to their labels, then the learning rate and the weights.")
    return ""
