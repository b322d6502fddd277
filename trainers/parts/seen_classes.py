"""Which classes training saw, in the heads that answer new ones otherwise: their `seen`, (C,) bool or None."""
from __future__ import annotations

from torch import Tensor

from clip import InputError


def which_were_seen(seen: Tensor | None, num_classes: int) -> Tensor:
    """(C,) bool. Raises InputError where nobody says it of these C classes."""
    if seen is None or len(seen) != num_classes:
        raise InputError("New classes are scored otherwise than those that training saw, and of these "
                         f"{num_classes} classes it is unknown which it saw.")
    return seen
