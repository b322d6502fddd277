"""classes.json: what a run can tell apart, so that it predicts on a machine that does not have its dataset."""
from __future__ import annotations

import contextlib
import os.path as osp
from pathlib import Path

from .tools import read_json, write_json

FILE = "classes.json"


def write_classes(folder: str, cfg, dataset, **more) -> None:
    """Write classes.json into a run folder, whole or not at all.

    Args:
        dataset: its class names, by label, and its template, if it has one.
        more: what the trainer adds, e.g. backbone={"name": ..., "sha256": ...}.
    """
    c = cfg.INPUT
    image = {"size": list(c.SIZE), "interpolation": c.INTERPOLATION, "normalised": "normalize" in c.TRANSFORMS,
             "mean": list(c.PIXEL_MEAN), "std": list(c.PIXEL_STD)}
    template = getattr(dataset, "template", None)
    record = {"trainer": cfg.TRAINER.NAME, "dataset": cfg.DATASET.NAME, "classnames": list(dataset.classnames),
              "template": template if isinstance(template, str) else None, "image": image, **more}
    write_json(record, osp.join(folder, FILE))


def read_classes(place: str) -> dict:
    """What the run says of its classes whose folder, model's folder or checkpoint `place` is.

    {} where there is no classes.json, or a cut one of a run that was killed.
    """
    path = Path(place).expanduser()
    for file in (folder / FILE for folder in ((path, path.parent, path.parent.parent) if place else ())):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, ValueError):
            if told := read_json(str(file)):
                return told
    return {}
