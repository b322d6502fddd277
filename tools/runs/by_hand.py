"""The cell of a run that no recipe made: from what its command names, or from what it left before cells were stored.

Imports nothing heavy.
"""
from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from dassl.errors import UserError
from tools.runs.cell import CLASSES, CONFIGS, EPOCHS, HALVES, MEANT, SHOTS, ZEROSHOT, Cell
from tools.runs.inputs import name_of, parse_yaml, words_of


def meant(given: Mapping, facts: Mapping, train_on: Cell | None = None) -> Cell:
    """The cell of a command: a sweep's own, from the environment, else what the command names.

    Args:
        given: as `tools.runs.inputs.describe` has it.
        facts: of results.json, as far as they are known: trainer, dataset, shots, seed, classes; and
            images, the name of the user's own ones.
        train_on: the cell of the run that is tested.
    Raises:
        UserError: the environment has another command's cell.
    """
    by_hand = by_contents(given, facts, train_on)
    if not (text := os.environ.get(MEANT)):
        return by_hand
    try:
        cell = Cell.from_dict(json.loads(text))
    except ValueError:
        cell = None
    if cell is None or (cell.trainer, cell.seed) != (by_hand.trainer, by_hand.seed):
        raise UserError(f"{MEANT} in the environment is not the cell of this run ({by_hand.trainer}, seed "
                          f"{by_hand.seed}): sweeps set it for their own runs. Unset it.")
    return cell


def by_contents(given: Mapping, facts: Mapping, train_on: Cell | None = None) -> Cell:
    """The cell of a run that was made by hand, or before cells were stored: what it was given, and no recipe.

    Args: as `meant`.
    """
    flags, opts = given.get("flags", {}), dict(given.get("opts", {}))
    trainer = str(facts.get("trainer") or flags.get("trainer", ""))
    shots = int(facts.get("shots", opts.get(SHOTS, -1)))
    files = [Path(name) for name in given.get("files", {})]
    yamls = [f.stem for f in files if f.parts[-2:-1] != ("datasets",) and f.suffix in (".yaml", ".yml")]
    if (half := facts.get("classes", "all")) in HALVES:
        opts[CLASSES] = half
    opts = {key: value for key, value in opts.items() if key != EPOCHS or str(value).isdecimal()}
    return Cell(trainer, facts.get("images") or _dataset(flags, files, str(facts.get("dataset", ""))),
                None if trainer == ZEROSHOT or shots < 1 else shots, int(facts.get("seed", flags.get("seed", -1))),
                yamls[0] if yamls else "", opts=opts, train_on=train_on, words=words_of(given),
                user_opts={key: value for key, value in opts.items() if key not in (SHOTS, CLASSES)})


def _dataset(flags: Mapping, files: list[Path], registered: str) -> str:
    """The name of the dataset's yaml, as recipes have it; of the user's own images that of their folder."""
    if "dataset_dir" in flags:
        return name_of(flags["dataset_dir"])
    for path in files:
        if path.parts[-2:-1] == ("datasets",):
            return path.stem
    return stem_of(registered)


def stem_of(registered: str) -> str:
    """The file name in configs/datasets of a registered dataset; of any other its name itself."""
    return next((stem for stem, name in dataset_names().items() if name == registered), registered)


@lru_cache
def dataset_names() -> dict[str, str]:
    """{file name in configs/datasets: registered name}."""
    return {path.stem: parse_yaml(path.read_text(encoding="utf-8"))["DATASET"]["NAME"]
            for path in sorted((CONFIGS / "datasets").glob("*.yaml"))}
