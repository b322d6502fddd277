"""The ways into a tower: what a prompt, an adapter or a low-rank update does to the tokens of a frozen transformer."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from .blocks import Block

SITES = ("qkv", "out", "attended", "fc", "proj")        # of a block, in their order: products, but "attended"
PARTS = ("enter", "project", "leave", "readers", "prefix")        # of a tuner


class Tuner(Protocol):
    """What may act inside a tower. Every part is optional; a missing one changes nothing.

    Blocks count from 0. Tokens are (..., L, W). In the text tower they may be packed: the shared prefix followed by
    every sequence's own tokens (B, p + R*L, W), so `project` and `leave` must treat each token by itself.

    Attributes:
        whole_sequence: in the text tower, each sequence must pass whole (N, L, W), because what the tuner does to its
            first tokens differs between sequences or makes them longer. Otherwise `enter` sees a shared prefix alone,
            if there is one.
    """

    whole_sequence: bool = False

    def enter(self, block: int, x: Tensor) -> Tensor:
        """What enters `block` instead of x; block -1 is before the vision tower's `ln_pre`.

        A text sequence, or a shared prefix, that comes back longer has grown in front of the end-of-text, which moves
        accordingly.
        """
        ...

    def project(self, block: int, site: str, x: Tensor, y: Tensor) -> Tensor:
        """What is used instead of y, the product of x at one of SITES; "qkv" is (..., L, 3W), in that order.

        At "attended", x and y are both the tokens between attention and MLP.
        """
        ...

    def leave(self, block: int, x: Tensor, y: Tensor) -> Tensor:
        """What leaves `block` instead of y, its output for x; in the last block for the tokens that are read alone."""
        ...

    def readers(self, block: int, x: Tensor, left: Tensor | None) -> Tensor | None:
        """Read-only tokens (N, k, W) for x (N, L, W), which enters `block`: they attend to x and nothing to them.

        They pass a block as x does, without `leave`; where x does not learn, nothing but they is recorded for autograd.
        In the text tower they see everything up to the end-of-text, and have no position.

        Args:
            block: as in `enter`; one more than the last, to give what is read of them in the end.
            left: those that left the block before, or `ln_pre`; None where there are none yet.
        """
        ...

    def prefix(self, block: int, x: Tensor) -> tuple[Tensor, Tensor] | None:
        """Keys and values (N, p, W) that the tokens x (N, L, W) of `block` attend to in front of their own; or None.

        In the image tower alone. They are taken as they are, after the projection of keys and values.
        """
        ...

    def select(self, rows: slice) -> Tuner:
        """The same for some of the N text sequences; needed where `enter` differs between sequences."""
        ...


class Tuners:
    """Some tuners one after the other, with the parts that they have.

    Args:
        tuners: none, one, or several in the order in which they act.
    """

    def __init__(self, tuners: Tuner | Sequence[Tuner] | None):
        if tuners is None or isinstance(tuners, Tuners):
            tuners = tuners.tuners if tuners is not None else ()
        elif any(hasattr(tuners, part) for part in PARTS):
            tuners = (tuners,)
        self.tuners = tuple(tuners)
        self._enter, self._project, self._leave, self._readers, self._prefix = (
            [getattr(t, part) for t in self.tuners if hasattr(t, part)] for part in PARTS)

    def __bool__(self) -> bool:
        return bool(self.tuners)

    @property
    def has_prefix(self) -> bool:
        return bool(self._prefix)

    @property
    def whole_sequence(self) -> bool:
        return bool(self._readers) or any(getattr(tuner, "whole_sequence", False) for tuner in self.tuners)

    def select(self, rows: slice) -> Tuners:
        return Tuners([tuner.select(rows) if hasattr(tuner, "select") else tuner for tuner in self.tuners])

    def enter(self, block: int, x: Tensor) -> Tensor:
        for part in self._enter:
            x = part(block, x)
        return x

    def project(self, block: int) -> Callable[[str, Tensor, Tensor], Tensor] | None:
        """Called with (site, x, y) after each product of `block`; None where no tuner has this part."""
        return partial(self._after_product, block) if self._project else None

    def _after_product(self, block: int, site: str, x: Tensor, y: Tensor) -> Tensor:
        for part in self._project:
            y = part(block, site, x, y)
        return y

    def leave(self, block: int, x: Tensor, y: Tensor) -> Tensor:
        for part in self._leave:
            y = part(block, x, y)
        return y

    def readers(self, block: int, x: Tensor, left: Tensor | None) -> Tensor | None:
        for part in self._readers:
            left = part(block, x, left)
        return left

    def prefix(self, block: int, x: Tensor) -> tuple[Tensor, Tensor] | None:
        found = [pair for part in self._prefix if (pair := part(block, x)) is not None]
        if len(found) < 2:
            return found[0] if found else None
        keys, values = (torch.cat(parts, dim=1) for parts in zip(*found, strict=True))
        return keys, values

    def read_only(self, block: int, module: Block, x: Tensor, left: Tensor | None,
                  last: Tensor | None = None) -> Tensor | None:
        """What leaves `module`, the tower's `block`, of the read-only tokens; None where there are none.

        Args:
            last: (N,) the last token of x that they see; None: they see all.
        """
        if (readers := self.readers(block, x, left)) is None:
            return None
        sees = None if last is None else torch.arange(x.shape[1], device=x.device) <= last[:, None]      # (N, L)
        return module.beside(readers, x, sees, self.project(block))
