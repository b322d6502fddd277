"""Few-shot draws and class halves, equal to CoOp's.

Source: CoOp (ff61507) datasets/oxford_pets.py: train is drawn before val, both from Python's global stream; a cached
list wins over a new draw; the draw is over all classes, the half is taken afterwards.
"""
from __future__ import annotations

import hashlib
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
Drawn = dict[str, list[Datum]]


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
        kept = KeptList(folder, shots, cfg.SEED, train, val) if folder is not None and cfg.SEED >= 0 else None
        drawn = kept.read() if kept else None
        if drawn is None:
            drawn = {"train": dataset.generate_fewshot_dataset(train, num_shots=shots)}
            if val is not None:
                drawn["val"] = dataset.generate_fewshot_dataset(val, num_shots=min(shots, 4))
            if kept:
                kept.write(drawn)
        _say_small_classes(dataset, train, shots)
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
        logger.warning("%d of the classes have fewer than %d training images, and all of them are used: %s", len(small),
                       shots, few)


class KeptList:
    """The list of one (dataset, shots, seed) on disk: CoOp's pickle, else our json, which names what it was drawn from.

    A json drawn from other splits (another split file was placed since) is not used; a pickle always is, as in CoOp.
    """

    def __init__(self, folder: Path, shots: int, seed: int, train: list[Datum], val: list[Datum] | None):
        self.folder, self.train, self.val = folder, train, val
        name = f"shot_{shots}-seed_{seed}"
        self.pickle = folder / "split_fewshot" / f"{name}.pkl"
        # The dataset's own folder first; the user's cache serves a read-only one.
        self.jsons = [folder / "split_fewshot" / f"{name}.json", cache_of(folder) / f"{name}.json"]
        rows = [[self._relative(d), d.label] for d in [*train, *(val or [])]]
        self.drawn_from = hashlib.sha256(repr(rows).encode()).hexdigest()[:16]

    def _relative(self, item: Datum) -> str:
        path, prefix = item.impath, f"{self.folder}{os.sep}"
        return path[len(prefix):] if path.startswith(prefix) else os.path.relpath(path, self.folder)

    def read(self) -> Drawn | None:
        if self.pickle.is_file():
            logger.info("Reading the few-shot list %s", self.pickle)
            drawn = {split: re_rooted(items, self.folder) for split, items in read_coop_pickle(self.pickle).items()}
            if self.val is not None and "val" not in drawn:
                raise UserError(f"{self.pickle} lists few-shot training images and no validation images, which this "
                                "dataset has. It was drawn for another dataset or cut: move it away to draw again.")
            self._check(drawn, self.pickle)
            return drawn
        for path in filter(Path.is_file, self.jsons):
            try:
                content = read_json(path)
                if content["drawn_from"] != self.drawn_from:
                    logger.warning("%s was drawn from another split and is drawn again", path)
                    continue
                drawn = {split: [Datum(impath=os.path.join(self.folder, p), label=label, classname=name)
                                 for p, label, name in content[split]]
                         for split in (("train",) if self.val is None else ("train", "val"))}
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise UserError(f"{path} is not a few-shot list ({error}). Delete it to draw again.") from error
            logger.info("Reading the few-shot list %s", path)
            self._check(drawn, path)
            return drawn
        return None

    def write(self, drawn: Drawn) -> None:
        content = {split: [[self._relative(d), d.label, d.classname] for d in items] for split, items in drawn.items()}
        for path in self.jsons:
            try:
                write_json({"drawn_from": self.drawn_from, **content}, str(path))
                return
            except OSError as error:
                logger.info("The few-shot list is not kept at %s (%s)", path, error)

    def _check(self, drawn: Drawn, path: Path) -> None:
        """Raises UserError unless each image of the list is one of its split, with that label."""
        for split, known in (("train", self.train), ("val", self.val)):
            labels = {self._relative(d): d.label for d in known or []}
            if split not in drawn or not labels:
                continue
            strange = [d.impath for d in drawn[split] if labels.get(self._relative(d)) != d.label]
            if strange:
                raise UserError(f"{path} does not fit this dataset: {len(strange)} of its {len(drawn[split])} "
                                f"{split} images are not in the {split} split with that label, first {strange[0]}. It "
                                "was drawn from another split file: place that one beside it, or delete the list.")


def re_rooted(items: list[Datum], folder: Path) -> list[Datum]:
    """The same images in `folder`, for a list that was made on another machine."""
    def here(path: str) -> str:
        _, found, tail = path.replace("\\", "/").rpartition(f"/{folder.name}/")
        return os.path.join(folder, tail) if found else path

    return [Datum(impath=here(d.impath), label=d.label, domain=d.domain, classname=d.classname) for d in items]


def cache_of(folder: Path) -> Path:
    """Where files about the dataset in `folder` are kept for a user who cannot write there."""
    return cache_dir() / "splits" / f"{folder.name}-{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}"


class _DatumUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str):
        if (module, name) == ("dassl.data.datasets.base_dataset", "Datum"):
            return Datum
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, and such a list holds only Datum")


def read_coop_pickle(path: Path) -> Drawn:
    """{split: images} that CoOp's code cached. Nothing but Datum is built from it, and nothing in it is run.

    Raises:
        UserError: the file is damaged or holds anything else.
    """
    try:
        with open(path, "rb") as file:
            content = _DatumUnpickler(file).load()
        for items in content.values():
            for d in items:
                if not (type(d) is Datum and type(d.impath) is type(d.classname) is str and type(d.label) is int):
                    raise TypeError(f"{type(d).__name__} where an image of CoOp's is expected")
        if "train" not in content:
            raise KeyError("train")
    except Exception as error:  # a pickle can be damaged in many ways; all mean the same to the user
        raise UserError(f"{path} is not a list of images that CoOp's code cached ({type(error).__name__}: {error}). "
                        "Delete it to have the list made again.") from error
    return content
