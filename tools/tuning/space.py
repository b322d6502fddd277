"""A search space, as it is typed: KEY=log:LOW:HIGH, KEY=uniform:LOW:HIGH, KEY=int:LOW:HIGH, KEY=choice:A,B,C.

Imports nothing heavy.
"""
from __future__ import annotations

import math
import re
from dataclasses import dataclass

from dassl.errors import UserError
from dassl.names import nearest
from tools.runs.cell import FINAL, RecipeError

FILE = "validation.csv"                     # in the run folder of a trial
POINTS = 10                                 # validations of a trial on its way, at most
KINDS = {"log": 2, "uniform": 2, "int": 2, "choice": None}      # and how many numbers they take
_NOT_TUNED = ("TEST.", "DATASET.", "SEED", "OUTPUT_DIR", "RESUME", "VERBOSE", "USE_CUDA")
_FORM = "KEY=log:LOW:HIGH, KEY=uniform:LOW:HIGH, KEY=int:LOW:HIGH or KEY=choice:A,B,C"


@dataclass(frozen=True)
class Range:
    """One setting that is searched.

    Attributes:
        kind: of KINDS. values: (low, high), or the texts of a choice.
    """

    key: str
    kind: str
    values: tuple

    def text(self, value) -> str:
        """A value as an option of a run: six significant digits."""
        return str(value) if self.kind in ("int", "choice") else f"{value:.6g}"

    @property
    def ends(self) -> tuple[str, ...]:
        """The texts that stand for it when keys and types are checked."""
        return tuple(self.text(value) for value in self.values)

    def distribution(self):
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.kind == "choice":
            return CategoricalDistribution(list(self.values))
        if self.kind == "int":
            return IntDistribution(*self.values)
        return FloatDistribution(*self.values, log=self.kind == "log")


def parse(words: list[str]) -> list[Range]:
    """The ranges that the words describe.

    Raises:
        RecipeError: not of the form, an empty range, the same key twice, or a key that decides what is tested on.
    """
    found: dict[str, Range] = {}
    for word in words:
        key, _, rest = word.partition("=")
        kind, _, numbers = rest.partition(":")
        if not re.fullmatch(r"[A-Z][A-Z0-9_]*(\.[A-Z0-9_]+)*", key) or not numbers:
            raise RecipeError(f"--space takes {_FORM}, got {word!r}.")
        if kind not in KINDS:
            raise RecipeError(f"{key} is searched by one of {', '.join(KINDS)}, got {kind!r}.{nearest(kind, KINDS)}")
        if key.startswith(_NOT_TUNED) and key != FINAL:
            raise RecipeError(f"{key} decides which images a trial sees or is scored on, so it cannot be searched. "
                              "Search settings of OPTIM, TRAINER, DATALOADER, INPUT or TRAIN.")
        if key in found:
            raise RecipeError(f"{key} is in --space twice. Give each key one range.")
        found[key] = Range(key, kind, tuple(numbers.split(",")) if kind == "choice" else _ends(key, kind, numbers))
        if kind == "choice" and len(set(found[key].values)) < 2:
            raise RecipeError(f"{key} needs at least two different values to choose from, got {numbers!r}.")
    if not found:
        raise RecipeError(f"--space is empty. It takes {_FORM}.")
    return list(found.values())


def _ends(key: str, kind: str, numbers: str) -> tuple:
    try:
        low, high = (int(text) if kind == "int" else float(text) for text in numbers.split(":"))
    except ValueError as error:
        what = "whole numbers" if kind == "int" else "numbers"
        raise RecipeError(f"{key} takes two {what}, as in {key}={kind}:1:10, got {numbers!r}.") from error
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise RecipeError(f"The range of {key} is empty: its low end must be below its high end, got {low} and {high}.")
    if kind == "log" and low <= 0:
        raise RecipeError(f"The low end of a log range must be above 0, got {low} for {key}. Use {key}=uniform:...")
    return low, high


def check(ranges: list[Range], arguments: list[str]):
    """The config of a run without the settings that are searched; imports what a run imports.

    Args:
        arguments: of tools/train.py, for that run.
    Raises:
        UserError: a run would refuse a key or the type of its values, or its method takes no steps that they change.
    """
    from dassl.engine import TRAINER_REGISTRY
    from tools import train

    parse_args = train.parser().parse_args
    cfg = train.setup_cfg(parse_args(arguments))
    learns = getattr(TRAINER_REGISTRY.get(cfg.TRAINER.NAME), "learns", "steps")
    for each in ranges:
        if learns != "steps" and each.key.startswith("OPTIM."):
            raise UserError(f"{cfg.TRAINER.NAME} learns in {learns}, without an optimiser, so {each.key} changes "
                            "nothing. Search keys of its own section, or take another recipe.")
        for text in each.ends:
            merged = train.setup_cfg(parse_args([*arguments, each.key, text]))
            usual = _value(cfg, each.key)
            if _value(merged, each.key) is None or each.kind in ("log", "uniform") and isinstance(usual, int):
                raise UserError(f"{each.key} takes whole numbers, got {each.kind}:{':'.join(each.ends)}. Use "
                                f"{each.key}=int:... or choice:...")
    return cfg


def _value(cfg, key: str):
    for part in key.split("."):
        cfg = cfg[part]
    return cfg
