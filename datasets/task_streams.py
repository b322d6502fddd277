"""Datasets on which classes arrive in tasks: five datasets as one, and ImageNet-R with a training part.

Source: the order of the five datasets as in JH-LEE-KR/l2p-pytorch f7bc994. Their NotMNIST has to be placed by hand.
ImageNet-R is divided by the lists of CODA-Prompt (GT-RIPL/CODA-Prompt, dataloaders/splits) where they lie beside its
images. Otherwise 80 to 20 within each class, as DualPrompt (Wang et al., ECCV 2022) divides it; which images theirs are
was not published with the paper.
"""
from __future__ import annotations

import logging
import os
import random
from pathlib import Path, PurePosixPath

from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from dassl.data.datasets.union import UnionDataset
from dassl.utils import UserError, listdir_nohidden

from . import readers
from .arrays import CIFAR10, MNIST, SVHN, FashionMNIST, FromArrays
from .benchmarks import find_or_fetch
from .cards import CARDS, DatasetCard
from .few_shot import few_shot_splits
from .inspection import state_of

LISTS = "imagenet-r_train.yaml", "imagenet-r_test.yaml"         # of CODA-Prompt

logger = logging.getLogger(__name__)


class NotMNIST(FromArrays):
    card = DatasetCard(
        "NotMNIST", "notmnist", "", "letters", 10, 0, "a photo of the letter {}.", needs=("train", "test"),
        home="https://github.com/facebookresearch/Adversarial-Continual-Learning",
        by_hand="Unpack notMNIST.zip so that notmnist/train/A/ to J/ and notmnist/test/A/ to J/ hold images.")

    def read(self, root: str) -> list[list[Datum]]:
        letters = "ABCDEFGHIJ"
        return [[Datum(impath=str(self.folder / split / name / file), label=label, classname=name)
                 for label, name in enumerate(letters) for file in sorted(listdir_nohidden(self.folder / split / name))]
                for split in ("train", "test")]


@DATASET_REGISTRY.register()
class FiveDatasets(UnionDataset):
    """SVHN, MNIST, CIFAR-10, NotMNIST and FashionMNIST: 50 classes in five tasks."""

    parts = SVHN, MNIST, CIFAR10, NotMNIST, FashionMNIST

    def __init__(self, cfg):
        super().__init__([dataset(cfg) for dataset in self.parts])

    @classmethod
    def listed(cls, root: Path) -> list:
        """Classes, no sizes of splits, and what lies below `root`."""
        states = [state_of(part.card, root / part.card.folder) for part in cls.parts]
        found = sum(state.startswith("present") for state in states)
        return [50, "-", "-", "-", "present" if found == len(states) else f"{found} of {len(states)} datasets"
                if found else "absent"]


@DATASET_REGISTRY.register()
class ImageNetRTasks(DatasetBase):
    """ImageNet-R's 200 classes, divided by CODA-Prompt's lists, or 80 % of each class for training, always the same."""

    @classmethod
    def listed(cls, root: Path) -> list:
        """Classes, no sizes of splits, and what lies below `root`."""
        card = CARDS["ImageNetR"]
        return [card.classes, "-", "-", "-", state_of(card, root / card.folder)]

    def __init__(self, cfg):
        card = CARDS["ImageNetR"]
        self.template = card.template
        folder = Path(os.path.abspath(os.path.expanduser(cfg.DATASET.ROOT or "."))) / card.folder
        find_or_fetch(card, folder)
        items = readers.imagenet_folders(card, folder)[2]
        train, test = listed(items, folder) or divided(items)
        train, _, test = few_shot_splits(self, cfg, train, None, test)
        super().__init__(train_x=train, test=test)


def divided(items: list[Datum], share: float = 0.8) -> tuple[list[Datum], list[Datum]]:
    """Of each class, `share` of the images and the rest: the same ones wherever the files have the same names."""
    draw, parts = random.Random(0), ([], [])
    by_label: dict[int, list[Datum]] = {}
    for item in items:
        by_label.setdefault(item.label, []).append(item)
    for label in sorted(by_label):
        own = sorted(by_label[label], key=lambda item: Path(item.impath).name)
        draw.shuffle(own)
        cut = round(share * len(own))
        parts[0].extend(own[:cut])
        parts[1].extend(own[cut:])
    return parts


def listed(items: list[Datum], folder: Path) -> tuple[list[Datum], list[Datum]] | None:
    """The training and test images of CODA-Prompt's lists in `folder`; None without these.

    Of a path, class folder and file count: theirs lie in train/ and test/.

    Raises:
        UserError: one list alone, a list that names no images or images that are not there, an image in both.
    """
    paths = [folder / name for name in LISTS]
    if not any(path.is_file() for path in paths):
        return None
    places, parts = {PurePosixPath(item.impath).parts[-2:]: item for item in items}, []
    for path in paths:
        if not path.is_file():
            raise UserError(f"{path} is missing: the two lists of ImageNet-R, {' and '.join(LISTS)}, belong together. "
                            "Fetch both from dataloaders/splits of https://github.com/GT-RIPL/CODA-Prompt, or remove "
                            "the other to divide each class 80 to 20.")
        lines = path.read_text(encoding="utf-8").splitlines()
        names = [PurePosixPath(line[2:].strip()).parts[-2:] for line in lines if line.startswith("- ") and "/" in line]
        if not names:
            raise UserError(f"{path} lists no images. Fetch it again.")
        if absent := [name for name in names if name not in places]:
            raise UserError(f"{len(absent):,} of the {len(names):,} images in {path} are not in {folder}, the first "
                            f"{'/'.join(absent[0])}. Fetch the images or the list again.")
        parts.append([places[name] for name in dict.fromkeys(names)])
    if both := {item.impath for item in parts[0]} & {item.impath for item in parts[1]}:
        raise UserError(f"{len(both):,} images are in both lists of {folder}, such as {min(both)}. Fetch the "
                        "lists again.")
    logger.info("ImageNet-R is divided by CODA-Prompt's lists in %s", folder)
    return parts[0], parts[1]
