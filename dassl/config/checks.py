"""Ranges of the engine's values, checked once before a trainer is built; types are checked when values are merged."""
from __future__ import annotations

import math
from collections.abc import Callable

from yacs.config import CfgNode

from dassl.utils.errors import UserError

from .defaults import get_cfg_default
from .merge import leaves


def _finite(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= LARGEST_NUMBER


def _between(low: float, high: float) -> Callable[[object], bool]:
    return lambda value: _finite(value) and low <= value <= high


def _each(holds: Callable[[object], bool], count: int = 0) -> Callable[[object], bool]:
    return lambda values: (isinstance(values, (list, tuple)) and count in (0, len(values))
                           and all(holds(value) for value in values))


def _whole(low: int, high: float = math.inf) -> Callable[[object], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


LARGEST_SIDE = 8192                      # pixels; far beyond any tower, and larger is a typing error
LARGEST_NUMBER = 1e30                    # what an optimiser makes of a larger one is no float32

RULES = (                                # what keys take, in words and as a test; the section and its keys
    ("at least 1", _whole(1), "DATALOADER", "TRAIN_X.BATCH_SIZE TRAIN_X.N_INS TRAIN_U.BATCH_SIZE TRAIN_U.N_INS "
                                            "TEST.BATCH_SIZE"),
    ("1 to 100", _whole(1, 100), "DATALOADER", "K_TRANSFORMS"),
    ("0 to 1024", _whole(0, 1024), "DATALOADER", "NUM_WORKERS"),
    ("0 or more", _whole(0), "DATALOADER", "CACHE_MB TRAIN_X.N_DOMAIN TRAIN_U.N_DOMAIN"),
    (f"two sides of 1 to {LARGEST_SIDE} pixels, height and width", _each(_whole(1, LARGEST_SIDE), 2), "INPUT", "SIZE"),
    ("three numbers, one per channel", _each(_finite, 3), "INPUT", "PIXEL_MEAN"),
    ("three numbers above 0, one per channel", _each(lambda v: _finite(v) and v > 0, 3), "INPUT", "PIXEL_STD"),
    ("two shares of the image in (0, 1], the smaller first",
     lambda v: _each(lambda s: _finite(s) and 0 < s <= 1, 2)(v) and v[0] <= v[1], "INPUT", "RRCROP_SCALE"),
    ("a list of names", _each(lambda v: isinstance(v, str)), "INPUT", "TRANSFORMS"),
    ("a list of names", _each(lambda v: isinstance(v, str)), "DATASET", "SOURCE_DOMAINS TARGET_DOMAINS"),
    (f"a number from 0 to {LARGEST_NUMBER:g}", _between(0, LARGEST_NUMBER), "OPTIM",
     "LR WEIGHT_DECAY MOMENTUM SGD_DAMPNING RMSPROP_ALPHA BASE_LR_MULT GAMMA WARMUP_CONS_LR WARMUP_MIN_LR MIN_LR"),
    (f"a number above 0, at most {LARGEST_NUMBER:g}", lambda v: _finite(v) and v > 0, "OPTIM", "ADAM_EPS"),
    ("a number in [0, 1)", lambda v: _finite(v) and 0 <= v < 1, "OPTIM", "ADAM_BETA1 ADAM_BETA2"),
    ("images or dassl", lambda v: v in ("images", "dassl"), "TRAIN", "STREAMS"),
    ("0 or more epochs", _whole(0), "OPTIM", "MAX_EPOCH"),
    ("a number from 0 to 1", _between(0, 1), "INPUT", "RGS_P GB_P ERASING_P"),
    (f"0 to {LARGEST_SIDE} pixels", _whole(0, LARGEST_SIDE), "INPUT", "CROP_PADDING CUTOUT_LEN"),
    (f"a number from 0 to {LARGEST_NUMBER:g}", _between(0, LARGEST_NUMBER), "INPUT",
     "GN_STD COLORJITTER_B COLORJITTER_C COLORJITTER_S"),
    ("a number from 0 to 0.5", _between(0, 0.5), "INPUT", "COLORJITTER_H"),
    ("0 or more steps", _whole(0), "OPTIM", "WARMUP_STEPS"),
    ("0 to 100", _whole(0, 100), "INPUT", "CUTOUT_N RANDAUGMENT_N"),
    ("0 to 30", _between(0, 30), "INPUT", "RANDAUGMENT_M"),
    ("an odd number of pixels", lambda v: _whole(1)(v) and v % 2 == 1, "INPUT", "GB_K"),
)


def check_values(cfg: CfgNode) -> None:
    """Raises UserError: a value of the engine is None where none is meant, or outside the range of its key."""
    default = dict(leaves(get_cfg_default()))
    given = dict(leaves(cfg))
    for key, value in default.items():           # sections of trainers are theirs
        if value is not None and given.get(key, value) is None and not key.startswith("TRAINER."):
            raise UserError(f"{key} has no value (None); by default it is {value!r}.")
        if isinstance(value, float) and not _finite(number := given.get(key, value)):
            raise UserError(f"{key} must be a number of at most {LARGEST_NUMBER:g} in size, got {number!r}.")
    for words, holds, section, keys in RULES:
        for key in (f"{section}.{name}" for name in keys.split()):
            if not holds(value := given.get(key, default[key])):
                raise UserError(f"{key} must be {words}, got {value!r}.")
