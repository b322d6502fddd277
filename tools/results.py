"""Reading results.json and inputs.json of run folders that may be cut, damaged or somebody else's.

Imports nothing heavy.
"""
from __future__ import annotations

import math
from pathlib import Path

from tools import inputs
from tools.inputs import read_json

FILE = "results.json"
_TYPES = {"finished": bool, "mode": str, "trainer": str, "dataset": str, "classes": str, "split": str, "shots": int,
          "seed": int, "num_classes": int, "learned_parameters": int, "metrics": dict, "seconds": dict,
          "versions": dict, "backbone": dict, "best_test_epoch": dict}
_NUMBERS = ("metrics", "seconds", "best_test_epoch")


def read(folder: Path) -> dict | None:
    """results.json of a run folder, without what is null; None where there is none or its fields are no run's."""
    record = read_json(folder / FILE)
    if record is None:
        return None
    record = {key: value for key, value in record.items() if value is not None}
    for key, kind in _TYPES.items():
        if key in record and (not isinstance(record[key], kind) or (kind is int and isinstance(record[key], bool))):
            return None
    numbers = [value for key in _NUMBERS for value in record.get(key, {}).values()]
    return record if all(isinstance(n, (int, float)) and math.isfinite(n) for n in numbers) else None


def accuracy(record: dict | None) -> float | None:
    """Accuracy in percent of a finished run, else None."""
    return record["metrics"].get("accuracy") if record and record.get("finished") and record.get("metrics") else None


def given(folder: Path) -> dict:
    """inputs.json of a run folder: what its command was given; {} where it does not say."""
    content = inputs.read(folder) or {}
    parts = {key: content.get(key, {}) for key in ("flags", "opts", "files")}
    if not content or not all(isinstance(part, dict) for part in parts.values()):
        return {}
    flags, texts = parts["flags"], ("trainer", "model_dir", "dataset_dir")
    sound = isinstance(flags.get("seed", 0), int) and all(isinstance(flags.get(name, ""), str) for name in texts)
    shots = str(parts["opts"].get("DATASET.NUM_SHOTS", 0)).removeprefix("-")
    return parts if sound and shots.isdecimal() else {}
