"""Let somebody's `extend_cfg` add its keys without taking away those that are there."""
from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from copy import copy

from yacs.config import CfgNode

from dassl.utils.errors import UserError

logger = logging.getLogger(__name__)

_TEXT_OR_NOT = ("text", "True or False")
_GONE = object()


def extend(cfg: CfgNode, extend_cfg: Callable[[CfgNode], None], source: str) -> bool:
    """Call `extend_cfg(cfg)`. Its defaults win; keys of a section that it recreates and leaves out are kept.

    A public train.py makes the sections of all its methods, under names that other methods use as well: the run takes
    its values, and a warning names them.

    Args:
        source: whose function it is, for messages.
    Returns:
        Whether all that was there is as it was.
    Raises:
        UserError: a key of the engine, outside TRAINER, with another kind of value, such as text instead of a number.
            True or False instead of text is taken as it is. Below TRAINER every kind is: authors of a method that is
            here too often give its keys other kinds, such as CTX_INIT True where ours lists words.
    """
    before = _values(cfg)                           # yacs's own clone() of fifty methods' sections takes a second
    extend_cfg(cfg)
    found = list(_kept(cfg, before, source))
    changed = [f"{key} {new!r} (was {old!r})" for key, old, new in found if new is not _GONE]
    if changed:
        logger.warning("%s sets other defaults, which this run takes: %s", source, ", ".join(changed))
    return not found


def _values(node: CfgNode) -> dict:
    """The sections of a config as plain dicts."""
    return {key: _values(value) if isinstance(value, CfgNode) else copy(value) for key, value in node.items()}


def _kept(node: CfgNode, before: dict, source: str, prefix: str = "") -> Iterator[tuple[str, object, object]]:
    """Put back what is missing in `node`; yields (key, old, new) where a value has changed or was _GONE."""
    for name, old in before.items():
        key, new = f"{prefix}{name}", node.get(name)
        if name not in node:
            node[name] = CfgNode(old) if isinstance(old, dict) else old
            yield key, old, _GONE
        elif isinstance(old, dict) and isinstance(new, CfgNode):
            yield from _kept(new, old, source, f"{key}.")
        elif type(old) is type(new) and old == new:
            continue
        elif new is None and key.startswith("DATASET."):
            node[name] = old                        # None means the default there, as in NUM_SHOTS = None
        elif None not in (old, new) and not key.startswith("TRAINER.") and \
                (_kind(old), _kind(new)) not in {(_kind(old), _kind(old)), _TEXT_OR_NOT}:
            raise UserError(f"{source} makes config key {key} {_kind(new)} ({_short(new)}); here it is {_kind(old)} "
                            f"({_short(old)}), and the engine reads it. Give the new key another name.")
        elif (_kind(old), old) != (_kind(new), new):
            node[name] = float(new) if isinstance(old, float) and type(new) is int else new
            yield key, old, new


def _kind(value: object) -> str:
    kinds = {dict: "a section", bool: "True or False", (int, float): "a number", str: "text",
             (tuple, list): "a list"}
    return next((word for types, word in kinds.items() if isinstance(value, types)), type(value).__name__)


def _short(value: object) -> str:
    return ", ".join(value) if isinstance(value, dict) else repr(value)
