"""Whether an accuracy is more than guessing gives, as far as the number of images tells. Imports nothing heavy."""
from __future__ import annotations

import math
from functools import lru_cache

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
    return BELOW if math.fsum(_probabilities(total, num_classes)[:correct + 1]) <= LUCK else CHANCE


def reachable(total: int, num_classes: int) -> int:
    """The most right answers that guessing among `num_classes` reaches on `total` images with probability LUCK."""
    probabilities, at_least, k = _probabilities(total, num_classes), 0.0, total + 1
    while at_least < LUCK * (1 - 1e-9):                     # 1 in 100 exactly counts, however it is rounded
        k -= 1
        at_least += probabilities[k]                                                # P(X >= k)
    return k


@lru_cache(maxsize=4)
def _probabilities(total: int, num_classes: int) -> list[float]:
    """Of 0, 1 ... `total` right answers."""
    right, wrong, whole = -math.log(num_classes), math.log1p(-1 / num_classes), math.lgamma(total + 1)
    return [math.exp(whole - math.lgamma(k + 1) - math.lgamma(total - k + 1) + k * right + (total - k) * wrong)
            for k in range(total + 1)]


def explain(verdict: str, correct: int, total: int, num_classes: int) -> str:
    """A paragraph for a verdict of `versus_guessing`; "" for ABOVE."""
    guessing = f"guessing among {num_classes:,} classes gives {100 / num_classes:.1f}%" if num_classes else ""
    found = f"{100 * correct / total:.1f}% of {total:,} images" if total else ""
    if verdict == TOO_FEW:
        luck = _probabilities(total, num_classes)[-1]
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
