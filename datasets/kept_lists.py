"""Few-shot lists on disk: CoOp's, those that others publish, and ours.

Source of the formats: CoOp (ff61507), a pickle of Datum; 2SFS (FarinaMatteo/rethinking_fewshot_vlms 64ac143), lines of
JSON, {"_impath", "_label", "_classname", "_domain"} with paths below the folder of all datasets; cross_modal_adaptation
(linzhiqiu, ac9077e) indices/, JSON {split: {"data": [{"impath", "label", "classname"}], "indices": [...]}}.
"""
from __future__ import annotations

import hashlib
import json
import logging
import os
import pickle
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

from dassl.data.datasets import Datum
from dassl.utils import UserError, cache_dir, read_json, write_json

from .listing import Listing, below, rows_digest

logger = logging.getLogger(__name__)

Drawn = dict[str, list[Datum]]


class KeptList:
    """The list of one (dataset, shots, seed) on disk.

    A list of others is always used. Ours names what it was drawn from, and is not used if that has changed (another
    split file was placed since).
    """

    def __init__(self, folder: Path, shots: int, seed: int, train: Sequence[Datum], val: list[Datum] | None):
        self.folder, self.train, self.val = folder, train, val
        self.name = f"shot_{shots}-seed_{seed}"
        # The dataset's own folder first; the user's cache serves a read-only one.
        self.jsons = [folder / "split_fewshot" / f"{self.name}.json", cache_of(folder) / f"{self.name}.json"]

    @cached_property
    def drawn_from(self) -> str:
        if isinstance(self.train, Listing) and not self.val:
            return self.train.digest
        return rows_digest([*self.train, *(self.val or [])], self.folder)

    def read(self) -> Drawn | None:
        """Raises UserError for a file that is not a list, or lists images that its split does not have."""
        own = self.folder / "split_fewshot"
        places = [(own / f"{self.name}.pkl", read_coop_pickle), (own / f"{self.name}_train.jsonl", _read_lines),
                  *((path, self._read_json) for path in self.jsons)]
        for path, read in places:
            if path.is_file() and (drawn := self._read(path, read)) is not None:
                logger.info("Reading the few-shot list %s", path)
                return drawn
        return None

    def _read(self, path: Path, read: Callable[[Path], Drawn | None]) -> Drawn | None:
        try:
            drawn = read(path)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(f"{path} is not a few-shot list ({error}). Delete it to draw again.") from error
        if drawn is None:
            return None
        drawn = {split: re_rooted(items, self.folder) for split, items in drawn.items()}
        if self.val is None:
            drawn.pop("val", None)
        elif "val" not in drawn:
            raise UserError(f"{path} lists few-shot training images and no validation images, which this dataset has. "
                            "It was drawn for another dataset or cut: move it away to draw again.")
        self._check(drawn, path)
        return drawn

    def _read_json(self, path: Path) -> Drawn | None:
        """cross_modal_adaptation's list or ours, which have one name; None for one of ours from another split."""
        content = read_json(path)
        if isinstance(content["train"], dict):
            return {split: [Datum(row["impath"], row["label"], classname=row["classname"]) for row in part["data"]]
                    for split, part in content.items()}
        if content["drawn_from"] != self.drawn_from:
            logger.warning("%s was drawn from another split and is drawn again", path)
            return None
        return {split: [Datum(os.path.join(self.folder, p), label, classname=name) for p, label, name in content[split]]
                for split in (("train",) if self.val is None else ("train", "val"))}

    def write(self, drawn: Drawn) -> None:
        content = {split: [[below(d.impath, self.folder), d.label, d.classname] for d in items]
                   for split, items in drawn.items()}
        for path in self.jsons:
            try:
                write_json({"drawn_from": self.drawn_from, **content}, str(path))
                return
            except OSError as error:
                logger.info("The few-shot list is not kept at %s (%s)", path, error)

    def _check(self, drawn: Drawn, path: Path) -> None:
        """Raises UserError unless each image of the list is one of its split, with that label."""
        for split, known in (("train", self.train), ("val", self.val)):
            if split not in drawn or not known:
                continue
            label_of = known.label_of if isinstance(known, Listing) else {d.impath: d.label for d in known}.get
            strange = [d.impath for d in drawn[split] if label_of(d.impath) != d.label]
            if strange:
                raise UserError(f"{path} does not fit this dataset: {len(strange)} of its {len(drawn[split])} "
                                f"{split} images are not in the {split} split with that label, first {strange[0]}. It "
                                "was drawn from another split file: place that one next to it, or delete the list.")


def re_rooted(items: list[Datum], folder: Path) -> list[Datum]:
    """The same images in `folder`, for a list that was made on another machine or names paths from `folder` on."""
    start, mark = f"{folder}{os.sep}", f"/{folder.name}/"

    def here(path: str) -> str:
        if path.startswith(start):
            return path
        _, found, tail = f"/{path}".replace("\\", "/").rpartition(mark)
        return os.path.join(folder, tail) if found else path

    return [Datum(impath=here(d.impath), label=d.label, domain=d.domain, classname=d.classname) for d in items]


def cache_of(folder: Path) -> Path:
    """Where files about the dataset in `folder` are kept for a user who cannot write there."""
    return cache_dir() / "splits" / f"{folder.name}-{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}"


def coop_pickle(path: Path) -> bytes | None:
    """What CoOp's code caches at `path` (split_fewshot/shot_K-seed_S.pkl), from our list; None without one."""
    folder = path.parent.parent
    if path.parent.name != "split_fewshot" or path.suffix != ".pkl":
        return None
    places = (path.with_suffix(".json"), *(cache_of(f) / f"{path.stem}.json" for f in (folder, folder.absolute())))
    content = next((read_json(place) for place in places if place.is_file()), {})
    lists = {split: [Datum(os.path.join(folder, impath), label, classname=name) for impath, label, name in rows]
             for split, rows in content.items() if split in ("train", "val") and isinstance(rows, list)}
    return pickle.dumps(lists) if lists else None


def _read_lines(path: Path) -> Drawn:
    """2SFS's list, whose validation images are in a second file."""
    files = {"train": path, "val": path.with_name(path.name.replace("_train", "_val"))}
    return {split: [Datum(row["_impath"], row["_label"], row["_domain"], row["_classname"])
                    for line in file.read_text(encoding="utf-8").splitlines() if line.strip()
                    for row in (json.loads(line),)]
            for split, file in files.items() if file.is_file()}


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
