"""Ranges of the engine's values, checked once before a trainer is built; types are checked when values are merged."""
from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from yacs.config import CfgNode

from dassl.utils.errors import UserError

from .defaults import get_cfg_default


@dataclass(frozen=True)
class Rule:
    """What `keys` of `section` take, in words and as a test."""

    words: str
    holds: Callable[[object], bool]
    section: str
    keys: tuple[str, ...]


def _finite(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _between(low: float, high: float) -> Callable[[object], bool]:
    return lambda value: _finite(value) and low <= value <= high


def _below_one(value) -> bool:
    return _finite(value) and 0 <= value < 1


def _each(holds: Callable[[object], bool], count: int = 0) -> Callable[[object], bool]:
    return lambda values: (isinstance(values, (list, tuple)) and count in (0, len(values))
                           and all(holds(value) for value in values))


def _whole(low: int, high: float = math.inf) -> Callable[[object], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


LARGEST_SIDE = 8192                      # pixels; far beyond any tower, and a batch of such images is no typing error

RULES = (
    Rule("at least 1", _whole(1), "DATALOADER", ("TRAIN_X.BATCH_SIZE", "TRAIN_X.N_INS", "TRAIN_U.BATCH_SIZE",
                                                 "TRAIN_U.N_INS", "TEST.BATCH_SIZE")),
    Rule("1 to 100", _whole(1, 100), "DATALOADER", ("K_TRANSFORMS",)),
    Rule("0 or more", _whole(0), "DATALOADER", ("NUM_WORKERS", "CACHE_MB", "TRAIN_X.N_DOMAIN", "TRAIN_U.N_DOMAIN")),
    Rule(f"two sides of 1 to {LARGEST_SIDE} pixels, height and width", _each(_whole(1, LARGEST_SIDE), 2), "INPUT",
         ("SIZE",)),
    Rule("three numbers, one per channel", _each(_finite, 3), "INPUT", ("PIXEL_MEAN",)),
    Rule("three numbers above 0, one per channel", _each(lambda v: _finite(v) and v > 0, 3), "INPUT", ("PIXEL_STD",)),
    Rule("two shares of the image in (0, 1], the smaller first",
         lambda v: _each(lambda s: _finite(s) and 0 < s <= 1, 2)(v) and v[0] <= v[1], "INPUT", ("RRCROP_SCALE",)),
    Rule("a list of names", _each(lambda v: isinstance(v, str)), "INPUT", ("TRANSFORMS",)),
    Rule("a list of names", _each(lambda v: isinstance(v, str)), "DATASET", ("SOURCE_DOMAINS", "TARGET_DOMAINS")),
    Rule("a number, 0 or more", _between(0, math.inf), "OPTIM",
         ("LR", "WEIGHT_DECAY", "MOMENTUM", "SGD_DAMPNING", "RMSPROP_ALPHA", "BASE_LR_MULT", "GAMMA", "WARMUP_CONS_LR",
          "WARMUP_MIN_LR")),
    Rule("a number in [0, 1)", _below_one, "OPTIM", ("ADAM_BETA1", "ADAM_BETA2")),
    Rule("images or dassl", lambda v: v in ("images", "dassl"), "TRAIN", ("STREAMS",)),
    Rule("0 or more epochs", _whole(0), "OPTIM", ("MAX_EPOCH",)),
    Rule("a number from 0 to 1", _between(0, 1), "INPUT", ("RGS_P", "GB_P")),
    Rule("0 or more", _whole(0), "INPUT", ("CROP_PADDING", "CUTOUT_LEN")),
    Rule("0 to 100", _whole(0, 100), "INPUT", ("CUTOUT_N", "RANDAUGMENT_N")),
    Rule("0 to 30", _between(0, 30), "INPUT", ("RANDAUGMENT_M",)),
    Rule("an odd number of pixels", lambda v: _whole(1)(v) and v % 2 == 1, "INPUT", ("GB_K",)),
)


def check_values(cfg: CfgNode) -> None:
    """Raises UserError: a value of the engine is None where none is meant, or outside the range of its key."""
    default = get_cfg_default()
    for key, value in _leaves(default):
        if value is not None and _at(cfg, key, value) is None:
            raise UserError(f"{key} has no value (None); by default it is {value!r}.")
    for rule in RULES:
        for key in rule.keys:
            key = f"{rule.section}.{key}"
            value = _at(cfg, key, _at(default, key))
            if not rule.holds(value):
                raise UserError(f"{key} is {rule.words}; got {value!r}.")


def _at(cfg: CfgNode, key: str, otherwise=None):
    """The value of a key, or `otherwise` where a config of somebody else's lacks it."""
    node = cfg
    for part in key.split("."):
        if part not in node:
            return otherwise
        node = node[part]
    return node


def _leaves(node: CfgNode, prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in node.items():
        if prefix or key != "TRAINER":           # sections of trainers are theirs; others may leave them out
            yield from _leaves(value, f"{prefix}{key}.") if isinstance(value, CfgNode) else [(f"{prefix}{key}", value)]
