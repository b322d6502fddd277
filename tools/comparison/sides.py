"""One side of a comparison: a run folder, or a folder that holds the seeds of one row."""
from __future__ import annotations

import csv
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import yaml

from tools import results

_PLACES = {"OUTPUT_DIR", "RESUME", "DATASET.ROOT"}                     # where, not what
_FILES = ("results.json", "config.yaml")


class NoRun(Exception):
    """What was named is nothing that can be compared; the message says the way out."""


@dataclass
class Run:
    """A run folder, finished or not."""

    folder: Path

    @cached_property
    def record(self) -> dict:
        record = results.read(self.folder)
        if record is None and (self.folder / results.FILE).exists():
            raise NoRun(f"{self.folder / results.FILE} is damaged, or no run has written it. Run the command in "
                        "log.txt again, or name another run.")
        return record or {}

    @cached_property
    def config(self) -> dict[str, object]:
        """Dotted key -> value, without the folders that were read and written."""
        path = self.folder / "config.yaml"
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise NoRun(f"{path} is no yaml: {' '.join(str(error).split())}") from error
        if not isinstance(content or {}, dict):
            raise NoRun(f"{path} is damaged: a run writes sections of settings there.")
        flat: dict[str, object] = {}
        _flatten(content or {}, "", flat)
        return {key: value for key, value in flat.items() if key not in _PLACES}

    @cached_property
    def flags(self) -> dict[str, object]:
        """Flags of the command that name what was done: the prompts that were tested, plugins, images of one's own."""
        given = results.given(self.folder).get("flags", {})
        return {name: value for name, value in given.items() if name not in ("seed", "trainer", "backbone")}

    @property
    def seed(self) -> int:
        named = re.fullmatch(r"seed(\d+)", self.folder.name)
        seed = self.record.get("seed", self.config.get("SEED", named[1] if named else -1))
        return int(seed) if str(seed).removeprefix("-").isdecimal() else -1

    @property
    def metrics(self) -> dict[str, float]:
        return {name: float(value) for name, value in (self.record.get("metrics") or {}).items()}

    @cached_property
    def predictions(self) -> dict[str, tuple[str, str]]:
        """Path of the image -> true and predicted class, from predictions.csv; {} without."""
        path = self.folder / "predictions.csv"
        if not path.is_file():
            return {}
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            try:
                rows = list(csv.DictReader(file))
            except csv.Error as error:
                raise NoRun(f"{path} is damaged: {error}. Without it the rest can be compared.") from error
        columns = ("path", "true", "predicted")
        whole = all(row.get(name) is not None for row in rows for name in columns)
        return {row["path"]: (row["true"], row["predicted"]) for row in rows} if whole else {}

    @cached_property
    def per_class(self) -> dict[str, float]:
        """Class -> accuracy in percent; {} where the run has not recorded it."""
        if self.predictions:
            hits: dict[str, list[bool]] = {}
            for true, predicted in self.predictions.values():
                hits.setdefault(true, []).append(true == predicted)
            return {name: 100 * sum(own) / len(own) for name, own in hits.items()}
        log = self.folder / "log.txt"
        lines = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
        found = re.findall(r"^\* class: \d+ \((.*)\)\ttotal: [\d,]+\tcorrect: [\d,]+\tacc: ([\d.]+)%", lines, re.M)
        return {name: float(accuracy) for name, accuracy in found}


@dataclass
class Side:
    """name: A, B, ...; runs: seed -> run; several: whether a folder of seeds was named."""

    name: str
    folder: Path
    runs: dict[int, Run] = field(default_factory=dict)
    several: bool = False


def sides_of(names: list[str]) -> list[Side]:
    """The sides, in the order they were named.

    Raises:
        NoRun: a folder is missing, holds no run or holds runs of several rows.
    """
    return [_side(chr(ord("A") + i) if len(names) <= 26 else f"run {i + 1}", Path(n)) for i, n in enumerate(names)]


def _side(name: str, folder: Path) -> Side:
    if folder.is_file() and folder.name in _FILES:
        folder = folder.parent
    if not folder.is_dir():
        raise NoRun(f"There is no folder {folder}. Name a run folder, which has a results.json, or one of seeds.")
    if any((folder / file).is_file() for file in _FILES):
        run = Run(folder)
        return Side(name, folder, {run.seed: run})
    side = Side(name, folder, several=True)
    for child in sorted(folder.iterdir()):
        if any((child / file).is_file() for file in _FILES):
            run = Run(child)
            if run.seed in side.runs:
                raise NoRun(f"{folder} holds two runs of seed {run.seed}, {side.runs[run.seed].folder.name} and "
                            f"{child.name}. Name the runs to compare.")
            side.runs[run.seed] = run
    if not side.runs:
        inner = next((path.parents[1] for file in _FILES
                      for path in sorted(folder.rglob(f"*/{file}"))), None)
        raise NoRun(f"{folder} is no run folder (it has no results.json and no config.yaml) and holds none."
                    + (f" {inner} does: name that one, or a run in it." if inner else ""))
    kinds = {(run.record.get("trainer"), run.record.get("dataset")) for run in side.runs.values() if run.record}
    if len(kinds) > 1:
        raise NoRun(f"{folder} holds runs of {', '.join(sorted(' on '.join(map(str, k)) for k in kinds))}. Name "
                    "folders that hold the seeds of one row each.")
    return side


def _flatten(node: dict, prefix: str, into: dict[str, object]) -> None:
    for key, value in node.items():
        if isinstance(value, dict):
            _flatten(value, f"{prefix}{key}.", into)
        else:
            into[f"{prefix}{key}"] = value
