"""results.json: what a run found and all that made it; one schema for every run, whatever it learned.

`FIELDS` is the schema, docs/runs.md the same for people. Files of version 1 are those without "version": they lack the
cell, which then follows from inputs.json next to them (`tools.runs.folder`). A run that is cut, damaged or somebody
else's is not a record. Imports nothing heavy.
"""
from __future__ import annotations

import logging
import math
from pathlib import Path

from dassl.chance import CHANCE, versus_guessing
from tools.runs.cell import Cell
from tools.runs.inputs import read_json

logger = logging.getLogger(__name__)

FILE = "results.json"
VERSION = 2                             # of what `dassl.utils.run_record` writes
NUMBER = (int, float)
FIELDS: dict[str, tuple[type | tuple, str]] = {
    "version": (int, "of this schema; 1 where it is missing"),
    "cell": (dict, "what was to be run, as it was meant: see `tools.runs.cell.Cell`"),
    "finished": (bool, "true: the file is written at the end"),
    "mode": (str, "`train`, or `eval-only` where only a test was made"),
    "trainer": (str, "registered name"),
    "dataset": (str, "registered name; of one's own images that of their folder"),
    "shots": (int, "training images per class; less than 1: all"),
    "seed": (int, "less than 0: unseeded"),
    "classes": (str, "`all`, or the half: `base`, `new`"),
    "num_classes": (int, "number of candidate classes"),
    "split": (str, "which was tested: `test` or `val`"),
    "num_test": (int, "images tested"),
    "attack": (str, "under which they were, TEST.ATTACK"),
    "metrics": (dict, "name -> number, percent but for an evaluator of one's own; `accuracy` first; `nll` is in "
                       "nats, `ece` over 15 bins, `top5` there of more than five classes"),
    "per_class": (dict, "class name -> accuracy, percent, of the classes that were tested"),
    "epochs": (int, "of the training; 0 without one"),
    "left_out_of_each_epoch": (int, "training images that no batch of an epoch had"),
    "model_selection": ((str, dict), "which weights were tested, and on what they were chosen"),
    "best_test_epoch": (dict, "`epoch` and `accuracy` of the epoch that is best on the test split, where it was kept"),
    "on_nan": (dict, "steps that were left out as their loss was not finite"),
    "at_chance": (bool, "guessing reaches this accuracy too, with probability above 0.01"),
    "versus_guessing": (str, "`above`, `chance`, `below` or `too few images` to tell"),
    "learned_parameters": (int, "how many numbers are learned"),
    "backbone": (dict, "`name` and `sha256` of CLIP's weights"),
    "precision": (str, "what the towers computed in"),
    "onednn_products": (bool, "whether matrix products on the CPU were oneDNN's"),
    "split_hash": (str, "sha256 of the training images and their labels"),
    "lists": ((str, dict), "whether split and few-shot list are the published ones"),
    "class_hash": (str, "sha256 of the class names"),
    "config_hash": (str, "sha256 of config.yaml without folders"),
    "transforms": (list, "of training images"),
    "seconds": (dict, "`train`, `test` and `total`, loading included"),
    "peak_memory_mb": (NUMBER, "MiB of the GPU, or of the process on a CPU"),
    "world_size": (int, "processes that trained together"),
    "threads": (int, "CPU threads"),
    "device": (str, "name of the GPU, or `cpu`"),
    "machine": (str, "system, processor and cores"),
    "cuda_calls": (str, "where they ran, with --allow-cpu-shim"),
    "versions": (dict, "of Python and packages"),
    "commit": (str, "of the code"),
    "command": (str, "that made the run"),
    "date": (str, "UTC, ISO 8601"),
}
_NEEDED = {"finished", "mode", "trainer", "dataset", "classes", "split", "shots", "seed", "num_classes", "seconds",
           "metrics", "learned_parameters", "versions", "backbone", "best_test_epoch"}      # else the file is no run's
OF_TRAINING = ("mode", "epochs", "left_out_of_each_epoch", "model_selection", "best_test_epoch", "on_nan", "seconds",
               "peak_memory_mb", "world_size")          # what a second test of the run leaves as it is
_OF_NUMBERS = ("metrics", "seconds", "best_test_epoch")
_newer: set[int] = set()                # versions of which a warning was given


class Record(dict):
    """The content of a results.json, its fields of the schema's types; others, which a trainer may add, as they are."""

    @classmethod
    def read(cls, folder: Path) -> Record | None:
        """That of a run folder, without what is null or of another type; None where there is none that is a run's."""
        content = read_json(Path(folder) / FILE)
        if content is None:
            return None
        record = cls((key, value) for key, value in content.items() if value is not None)
        for key, (kind, _) in FIELDS.items():
            if key in record and (not isinstance(record[key], kind) or (kind is int and isinstance(record[key], bool))):
                if key in _NEEDED:
                    return None
                del record[key]
        numbers = [value for key in _OF_NUMBERS for value in record.get(key, {}).values()]
        if not all(isinstance(n, NUMBER) and math.isfinite(n) for n in numbers):
            return None
        if (version := record.get("version", 1)) > VERSION and version not in _newer:
            _newer.add(version)
            logger.warning("%s has version %d and this code knows %d: fields that are new in it are not shown",
                           Path(folder) / FILE, version, VERSION)
        return record

    @property
    def is_a_runs(self) -> bool:
        """Whether it is a run's at all, and not another program's results.json."""
        return bool({"finished", "metrics"} & set(self))

    @property
    def finished(self) -> bool:
        return bool(self.get("finished"))

    @property
    def metrics(self) -> dict[str, float]:
        return self.get("metrics", {})

    @property
    def accuracy(self) -> float | None:
        """Percent; None where the run has not ended, or measures something else."""
        return self.metrics.get("accuracy") if self.finished else None

    @property
    def score(self) -> str:
        """The accuracy in words, else the first number of an evaluator of one's own."""
        if self.accuracy is not None:
            return f"{self.accuracy:.1f} %"
        return " ".join(map(str, next(iter(self.metrics.items()), ("no metric", "-"))))

    @property
    def cell(self) -> Cell | None:
        """As it was stored; None in files of version 1."""
        return Cell.from_dict(self.get("cell"))

    @property
    def at_chance(self) -> bool:
        """Whether guessing reaches the accuracy too: the run's own verdict, or in older files the same rule applied."""
        if "at_chance" in self or self.accuracy is None or not self.get("num_test") or not self.get("num_classes"):
            return self.get("at_chance", False)
        total = self["num_test"]
        return versus_guessing(round(self.accuracy * total / 100), total, self["num_classes"]) == CHANCE
