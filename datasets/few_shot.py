"""Few-shot draws and class halves, equal to CoOp's.

Source: CoOp (ff61507) datasets/oxford_pets.py: train is drawn before val, both from Python's global stream; a cached
list wins over a new draw; the draw is over all classes, the half is taken afterwards.
"""
from __future__ import annotations

import logging
import math
import os
import pickle
from collections.abc import Sequence
from pathlib import Path

from dassl.data.datasets import DatasetBase, Datum
from dassl.utils import UserError, cache_dir, read_json, write_json

logger = logging.getLogger(__name__)

HALVES = ("all", "base", "new")


def few_shot_splits(dataset: DatasetBase, cfg, train: list[Datum], val: list[Datum] | None, test: list[Datum],
                    folder: Path | None = None):
    """The k-shot training and min(k, 4)-shot validation images, and the asked-for half of the classes.

    Args:
        dataset: draws (`generate_fewshot_dataset`).
        cfg: DATASET.NUM_SHOTS (below 1: everything), DATASET.SUBSAMPLE_CLASSES, SEED.
        train, val, test: whole splits; val None means that the benchmark has none of its own (ImageNet).
        folder: of the dataset, where lists are kept under split_fewshot/; None keeps none.
    Returns:
        train, val, test; val is None where it was.
    """
    shots, half = cfg.DATASET.NUM_SHOTS, cfg.DATASET.get("SUBSAMPLE_CLASSES", "all")
    if half not in HALVES:
        raise UserError(f"DATASET.SUBSAMPLE_CLASSES is one of {', '.join(HALVES)}; got {half!r}.")
    if shots >= 1:
        name = f"shot_{shots}-seed_{cfg.SEED}"
        drawn = _read(folder, name) if folder is not None and cfg.SEED >= 0 else None
        if drawn is None:
            _say_small_classes(dataset, train, shots)
            drawn = {"train": dataset.generate_fewshot_dataset(train, num_shots=shots)}
            if val is not None:
                drawn["val"] = dataset.generate_fewshot_dataset(val, num_shots=min(shots, 4))
            if folder is not None and cfg.SEED >= 0:
                _write(folder, name, drawn)
        train, val = drawn["train"], drawn.get("val", val)
    splits = subsample_classes(train, test if val is None else val, test, half=half)
    return splits[0], None if val is None else splits[1], splits[2]


def subsample_classes(*splits: Sequence[Datum], half: str = "all") -> list[list[Datum]]:
    """The first ceil(C / 2) classes by label ("base") or the rest ("new"), relabelled from 0."""
    if half == "all":
        return [list(s) for s in splits]
    labels = sorted({item.label for item in splits[0]})
    middle = math.ceil(len(labels) / 2)
    chosen = {label: i for i, label in enumerate(labels[:middle] if half == "base" else labels[middle:])}
    return [[Datum(impath=d.impath, label=chosen[d.label], domain=d.domain, classname=d.classname)
             for d in s if d.label in chosen] for s in splits]


def _say_small_classes(dataset: DatasetBase, train: list[Datum], shots: int) -> None:
    small = {items[0].classname: len(items) for items in dataset.split_dataset_by_label(train).values()
             if len(items) < shots}
    if small:
        few = ", ".join(f"{name} ({count})" for name, count in list(small.items())[:5])
        logger.warning("%d classes have fewer than %d training images, and all of them are used: %s", len(small), shots, few)


class _DatumUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str):
        if (module, name) == ("dassl.data.datasets.base_dataset", "Datum"):
            return Datum
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, and a few-shot list holds only Datum")


def read_coop_pickle(path: Path) -> dict[str, list[Datum]]:
    """A list that CoOp's code cached. Nothing but Datum is built from it.

    Raises:
        UserError: the file is damaged or holds anything else.
    """
    try:
        with open(path, "rb") as file:
            return _DatumUnpickler(file).load()
    except Exception as error:  # a pickle can be damaged in many ways; all mean the same to the user
        raise UserError(f"{path} is not a few-shot list of CoOp's ({error}). Delete it to draw the list again.") from error


def _folders(folder: Path) -> list[Path]:
    """The dataset's own folder first; the user's cache serves a read-only one."""
    return [folder / "split_fewshot", cache_dir() / "split_fewshot" / folder.name]


def _read(folder: Path, name: str) -> dict[str, list[Datum]] | None:
    pickled = folder / "split_fewshot" / f"{name}.pkl"
    if pickled.is_file():
        logger.info("Reading the few-shot list %s", pickled)
        return read_coop_pickle(pickled)
    for place in _folders(folder):
        if (path := place / f"{name}.json").is_file():
            logger.info("Reading the few-shot list %s", path)
            try:
                return {split: [Datum(impath=os.path.join(folder, p), label=label, classname=classname)
                                for p, label, classname in items] for split, items in read_json(path).items()}
            except (ValueError, TypeError, AttributeError) as error:
                raise UserError(f"{path} is not a few-shot list ({error}). Delete it to draw the list again.") from error
    return None


def _write(folder: Path, name: str, drawn: dict[str, list[Datum]]) -> None:
    rows = {split: [[os.path.relpath(d.impath, folder), d.label, d.classname] for d in items]
            for split, items in drawn.items()}
    for place in _folders(folder):
        try:
            write_json(rows, str(place / f"{name}.json"))
            return
        except OSError:
            continue
    logger.info("The few-shot list %s is not kept: neither %s nor the cache can be written", name, folder)
