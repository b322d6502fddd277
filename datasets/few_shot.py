"""Few-shot draws and class halves, equal to CoOp's.

Source: CoOp (ff61507) datasets/oxford_pets.py: train is drawn before val, both from Python's global stream; a cached
list wins over a new draw; the draw is over all classes, the half is taken afterwards. How lists are kept:
datasets/kept_lists.py.
"""
from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from dassl.data.datasets import DatasetBase, Datum
from dassl.utils import UserError

from .kept_lists import KeptList
from .listing import Listing, sampled

logger = logging.getLogger(__name__)

HALVES = ("all", "base", "new")


def few_shot_splits(dataset: DatasetBase, cfg, train: Sequence[Datum], val: list[Datum] | None, test: list[Datum],
                    folder: Path | None = None):
    """The k-shot training and min(k, 4)-shot validation images, and the asked-for half of the classes.

    Args:
        dataset: draws (`generate_fewshot_dataset`); its `few_shot_drawn`, if it has one, gets shots, seed and the list.
            Its `other_classnames` become those of the other half, in their order, its `all_classnames` those of both.
        cfg: DATASET.NUM_SHOTS (below 1: everything), DATASET.SUBSAMPLE_CLASSES, SEED.
        train, val, test: whole splits; val None means that the benchmark has none of its own (ImageNet).
        folder: of the dataset, where lists are kept under split_fewshot/; None keeps none.
    Returns:
        train, val, test; val is None where it was.
    """
    shots, half = cfg.DATASET.NUM_SHOTS, half_of(cfg)
    if shots >= 1:
        kept = KeptList(folder, shots, cfg.SEED, train, val) if folder is not None and cfg.SEED >= 0 else None
        drawn = kept.read() if kept else None
        if drawn is None:
            drawn = {"train": dataset.generate_fewshot_dataset(train, num_shots=shots)}
            if val is not None:
                drawn["val"] = dataset.generate_fewshot_dataset(val, num_shots=min(shots, 4))
            if kept:
                kept.write(drawn)
        if hasattr(dataset, "few_shot_drawn"):
            dataset.few_shot_drawn(shots, cfg.SEED, drawn)
        _warn_of_small_classes(train, shots)
        train, val = drawn["train"], drawn.get("val", val)
    return asked_half(dataset, half, train, val, test)


def half_of(cfg) -> str:
    """DATASET.SUBSAMPLE_CLASSES. Raises UserError: it is not one of HALVES."""
    half = cfg.DATASET.get("SUBSAMPLE_CLASSES", "all")
    if half not in HALVES:
        raise UserError(f"DATASET.SUBSAMPLE_CLASSES must be one of {', '.join(HALVES)}, got {half!r}.")
    return half


def asked_half(dataset: DatasetBase, half: str, train: Sequence[Datum], val: Sequence[Datum] | None,
               test: Sequence[Datum]):
    """The splits with the asked-for half of the classes alone; sets `other_classnames` and `all_classnames`."""
    splits = subsample_classes(train, test if val is None else val, test, half=half)
    kept = {item.classname for item in splits[0]}
    dataset.all_classnames = list(dict.fromkeys(item.classname for item in sorted(train, key=lambda item: item.label)))
    dataset.other_classnames = [name for name in dataset.all_classnames if name not in kept]
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


def _warn_of_small_classes(train: Sequence[Datum], shots: int) -> None:
    counts = train.counts if isinstance(train, Listing) else Counter(item.label for item in train)
    small = {label: count for label, count in counts.items() if count < shots}
    if small:
        names = {item.label: item.classname for item in sampled(train) if item.label in small}
        few = ", ".join(f"{names[label]} ({count})" for label, count in list(small.items())[:5])
        logger.warning("%d of the classes have fewer than %d training images, and all of them are used: %s", len(small),
                       shots, few)
