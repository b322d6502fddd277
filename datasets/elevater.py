"""ELEVATER's datasets: lists of images in zips, one registered name per card, each with the metric of its table.

Source: Elevater_Toolkit_IC 00d0af7, vision_benchmark/evaluation/feature.py construct_dataloader: images are drawn from
the training list alone, and a fifth of each class's validates; the validation list is never read. The draw is that of
microsoft/vision-datasets, sample_few_shot_subset, for the same seed.
"""
from __future__ import annotations

import json
import logging
import math
import os
import random
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import torch

from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from dassl.data.task import Task
from dassl.utils import UserError

from .benchmarks import DatasetNotFound
from .cards import Archive
from .check import MEANWHILE
from .download import DownloadError, get
from .elevater_cards import ADDRESS, CARDS, HOME, ElevaterCard
from .few_shot import asked_half, half_of

VAL_SHARE = 0.2
Row = tuple[str, tuple[int, ...]]           # path of an image, its labels

logger = logging.getLogger(__name__)


class Elevater(DatasetBase):
    """A dataset with a card, found under DATASET.ROOT or fetched.

    Attributes:
        card: its facts. labels_of: {path of an image: all of its labels}; several in VOC2007.
    """

    card: ElevaterCard
    task = Task(evaluator="ElevaterMetric")

    def __init__(self, cfg):
        self.template = self.card.template
        root = Path(os.path.abspath(os.path.expanduser(cfg.DATASET.ROOT or ".")))
        self.folder = root / "classification" / self.card.folder
        self._find_or_fetch()
        names, half = self._names(), half_of(cfg)
        train, test = (self._read(name, len(names)) for name in self.card.lists)
        self.labels_of: dict[str, tuple[int, ...]] = dict([*train, *test])
        shots = cfg.DATASET.NUM_SHOTS
        if shots >= 1:
            train = few_shot(train, max(shots, 2), cfg.SEED, len(names))
        train, val = held_out(train)
        if shots >= 1:
            logger.info("%d training images were drawn, of which %d validate; DATASET.TRAIN_ON_VAL trains on all",
                        len(train) + len(val), len(val))
        splits = [[Datum(path, labels[0], 0, names[labels[0]]) for path, labels in rows] for rows in (train, val, test)]
        train, val, test = asked_half(self, half, *splits)
        self._label_here = {label: label for label in range(len(names))} if half == "all" else {
            self.labels_of[item.impath][0]: item.label for item in train}
        super().__init__(train, None, val, test)

    def truth(self, split: str) -> torch.Tensor:
        """(N, C) 0 or 1: the labels of a split's images, in its order."""
        items = getattr(self, split)
        found = torch.zeros(len(items), self.num_classes)
        for row, item in zip(found, items, strict=True):
            here = (self._label_here.get(label, self.num_classes) for label in self.labels_of[item.impath])
            row[[label for label in here if label < self.num_classes]] = 1
        return found

    @property
    def has_several_labels(self) -> bool:
        """Whether some images do; then `truth("train_x")` is what is learned."""
        return any(len(labels) > 1 for labels in self.labels_of.values())

    def _find_or_fetch(self) -> None:
        card = self.card
        lacking = [name for name in dict.fromkeys((*card.lists, card.labels)) if not self._has(name)]
        lacking += [name for name in card.archives if not (self.folder / Path(name).stem).is_dir()
                    and not self._has(name)]
        if any(name.endswith(".json") for name in card.lists):
            lacking = [name for name in lacking if name != card.labels]
        if lacking:
            try:
                get([Archive(f"{ADDRESS}/{card.folder}/{name}", (name,), plain=True) for name in lacking], self.folder)
            except DownloadError as error:
                raise DatasetNotFound(
                    f"{card.name} is not complete in {self.folder}: {', '.join(lacking)} "
                    f"{'is' if len(lacking) == 1 else 'are'} missing. Downloading failed: {error}. By hand: its "
                    f"storage wants a signature, which {HOME} has; put what {ADDRESS}/{card.folder}/ has under these "
                    f"names into that folder, or run the tool there with --ds {card.tool_name} --output_dir "
                    f"{self.folder.parents[1]}. {MEANWHILE}") from error
        for name in card.archives:
            _unpack(self.folder / name)

    def _has(self, name: str) -> bool:
        return (self.folder / name).is_file()

    def _names(self) -> Sequence[str]:
        if self.card.names:
            return self.card.names
        first = self.folder / self.card.lists[0]
        if first.suffix == ".json":
            return [each["name"] for each in sorted(_json(first)["categories"], key=lambda each: each["id"])]
        return [line.strip() for line in (self.folder / self.card.labels).read_text(encoding="utf-8").splitlines()
                if line.strip()]

    def _read(self, name: str, classes: int) -> list[Row]:
        """Path and labels of each image of a split.

        Raises:
            UserError: the list is damaged or empty, or has labels of more classes.
        """
        path = self.folder / name
        try:
            rows = _coco(path) if path.suffix == ".json" else [
                (line.rsplit(" ", 1)[0], tuple(int(label) for label in line.rsplit(" ", 1)[1].split(",")))
                for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise UserError(f"{path} is no list of ELEVATER's ({type(error).__name__}: {error}). Delete it and fetch "
                            "it again.") from error
        if not rows:
            raise UserError(f"{path} lists no images. Delete it and fetch it again.")
        if (most := max(max(labels) for _, labels in rows)) >= classes:
            raise UserError(f"{path} has the label {most}, and there are {classes} classes. Delete it and fetch it "
                            "again.")
        return [(str(self.folder / _place(place)), labels) for place, labels in rows]

    @classmethod
    def listed(cls, root: Path) -> list:
        """Sizes, and what lies below `root`."""
        card, folder = cls.card, root / "classification" / cls.card.folder
        return [card.classes, card.train, card.val or "-", card.test,
                "present" if all((folder / name).is_file() for name in card.lists) else "absent"]


def few_shot(rows: Sequence[Row], shots: int, seed: int, classes: int) -> list[Row]:
    """About `shots` images of each class, of those with one label exactly so many where there are as many.

    An image with several labels is taken as long as one of its classes lacks half, or none has more than 1.5 times
    as many.
    """
    order, counts, found = list(rows), [0] * classes, []
    (random.Random(seed) if seed >= 0 else random).shuffle(order)
    for row in order:
        own = [counts[label] for label in row[1]]
        if min(own) < shots and (min(own) <= shots / 2 or max(own) <= 1.5 * shots):
            found.append(row)
            for label in row[1]:
                counts[label] += 1
        if min(counts) >= shots:
            break
    return found


def held_out(rows: Sequence[Row], share: float = VAL_SHARE) -> tuple[list[Row], list[Row]]:
    """Training and validation images: the first ceil(share * n) of each class's n validate.

    Of images with several labels, those that the first class which still lacks some has first, and so on.
    """
    places: dict[int, list[int]] = {}
    for i, (_, labels) in enumerate(rows):
        for label in labels:
            places.setdefault(label, []).append(i)
    lacks, chosen = {label: math.ceil(len(own) * share) for label, own in places.items()}, set()
    for label in sorted(places):
        for i in places[label]:
            if lacks[label] > 0 and i not in chosen:
                chosen.add(i)
                for own in rows[i][1]:
                    lacks[own] -= 1
    return ([row for i, row in enumerate(rows) if i not in chosen], [row for i, row in enumerate(rows) if i in chosen])


def _place(text: str) -> Path:
    """"train.zip@cat/1.jpg" -> train/cat/1.jpg."""
    archive, at, inside = text.partition("@")
    return Path(Path(archive).stem, inside) if at else Path(text)


def _coco(path: Path) -> list[tuple[str, tuple[int, ...]]]:
    content = _json(path)
    number = {each["id"]: i for i, each in enumerate(sorted(content["categories"], key=lambda each: each["id"]))}
    labels: dict = {}
    for each in content["annotations"]:
        labels.setdefault(each["image_id"], []).append(number[each["category_id"]])
    return [(f"{each['zip_file']}@{each['file_name']}" if each.get("zip_file") else each["file_name"],
             tuple(labels[each["id"]])) for each in content["images"]]


def _json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def _unpack(archive: Path) -> None:
    """Into a folder of the same name next to it, which appears whole or not at all."""
    target = archive.with_suffix("")
    if target.is_dir():
        return
    part = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=archive.parent))
    try:
        with zipfile.ZipFile(archive) as file:
            file.extractall(part)
    except (zipfile.BadZipFile, EOFError) as error:
        raise UserError(f"{archive} is no whole zip ({error}). Delete it, and it is fetched again.") from error
    part.chmod(0o755)
    part.rename(target)


for _card in CARDS.values():
    DATASET_REGISTRY.register()(type(_card.name, (Elevater,), {
        "card": _card, "dataset_dir": f"classification/{_card.folder}", "__module__": __name__,
        "__doc__": f"{_card.name}: {_card.classes} classes, {_card.test:,} test images."}))
