"""From a raw dataset to (train, val, test), by CoOp's rules and in the order of its random draws.

Every reader takes the card and the dataset's folder. `val` is None where CoOp draws it from nothing (ImageNet).
Source: CoOp (ff61507) datasets/*.py. Image folders are listed in the file system's order, as CoOp lists them; the
split file that is written then keeps that order.
"""
from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from dassl.data.datasets import Datum
from dassl.utils import is_hidden, listdir_nohidden, read_json

from .cards import DatasetCard
from .kept_lists import re_rooted, read_coop_pickle
from .listing import Listing

Splits = tuple[Sequence[Datum], "list[Datum] | None", list[Datum]]
LISTS_FILES = ("by_folder", "imagenet", "imagenet_numbered", "imagenet_folders")    # what they name exists


def split_train_val(trainval: list[Datum], p_val: float = 0.2) -> tuple[list[Datum], list[Datum]]:
    """Shuffle each class and take its first 20 % for validation."""
    by_label, train, val = defaultdict(list), [], []
    for index, item in enumerate(trainval):
        by_label[item.label].append(index)
    for indices in by_label.values():
        n_val = round(len(indices) * p_val)
        random.shuffle(indices)
        val += [trainval[i] for i in indices[:n_val]]
        train += [trainval[i] for i in indices[n_val:]]
    return train, val


def split_in_three(paths: list[str], label: int, classname: str, splits: Splits) -> None:
    """Shuffle one class's images into 50 % train, 20 % val and the rest test, appended to `splits`."""
    random.shuffle(paths)
    n_train, n_val = round(len(paths) * 0.5), round(len(paths) * 0.2)
    parts = paths[:n_train], paths[n_train:n_train + n_val], paths[n_train + n_val:]
    for split, part in zip(splits, parts, strict=True):
        split += [Datum(impath=p, label=label, classname=classname) for p in part]


def by_folder(card: DatasetCard, folder: Path) -> Splits:
    """One folder of images per class: Caltech101, Food101, DescribableTextures, EuroSAT."""
    images, splits = folder / card.images, ([], [], [])
    names = sorted(p.name for p in images.iterdir()
                   if p.is_dir() and not is_hidden(p.name) and p.name not in card.ignore)
    for label, name in enumerate(names):
        paths = [str(images / name / f) for f in listdir_nohidden(images / name)]
        split_in_three(paths, label, card.rename.get(name, name), splits)
    return splits


def caltech256(card: DatasetCard, folder: Path) -> Splits:
    """Folders such as 003.backpack or 253.faces-easy-101, each a class; only .jpg files are images."""
    images, items = folder / card.images, []
    names = sorted(p.name for p in images.iterdir()
                   if p.is_dir() and not is_hidden(p.name) and p.name not in card.ignore)
    for label, name in enumerate(names):
        classname = name.partition(".")[2].removesuffix("-101").replace("-", " ")
        items += [Datum(impath=str(images / name / f), label=label, classname=classname)
                  for f in listdir_nohidden(images / name) if f.endswith(".jpg")]
    return items, None, items


def pets(card: DatasetCard, folder: Path) -> Splits:
    def read(file: str) -> list[Datum]:
        items = []
        for line in (folder / "annotations" / file).read_text().splitlines():
            image, label, _species, _breed = line.split()
            breed = "_".join(image.split("_")[:-1]).lower()
            impath = str(folder / card.images / f"{image}.jpg")
            items.append(Datum(impath=impath, label=int(label) - 1, classname=breed))
        return items

    trainval, test = read("trainval.txt"), read("test.txt")
    return *split_train_val(trainval), test


def cars(card: DatasetCard, folder: Path) -> Splits:
    from scipy.io import loadmat

    names = [str(n[0]) for n in loadmat(folder / "devkit" / "cars_meta.mat")["class_names"][0]]

    def read(images: str, file: Path) -> list[Datum]:
        items = []
        for row in loadmat(file)["annotations"][0]:
            label = int(row["class"][0, 0]) - 1
            *model, year = names[label].split(" ")
            items.append(Datum(impath=str(folder / images / str(row["fname"][0])), label=label,
                               classname=" ".join([year, *model])))
        return items

    trainval = read("cars_train", folder / "devkit" / "cars_train_annos.mat")
    test = read("cars_test", folder / "cars_test_annos_withlabels.mat")
    return *split_train_val(trainval), test


def flowers(card: DatasetCard, folder: Path) -> Splits:
    from scipy.io import loadmat

    by_label, splits = defaultdict(list), ([], [], [])
    for i, label in enumerate(loadmat(folder / "imagelabels.mat")["labels"][0]):
        by_label[int(label)].append(str(folder / card.images / f"image_{i + 1:05d}.jpg"))
    names = read_json(folder / "cat_to_name.json")
    for label, paths in by_label.items():
        split_in_three(paths, label - 1, names[str(label)], splits)
    return splits


def aircraft(card: DatasetCard, folder: Path) -> Splits:
    labels = {name.strip(): i for i, name in enumerate((folder / "variants.txt").read_text().splitlines())}

    def read(split: str) -> list[Datum]:
        lines = (folder / f"images_variant_{split}.txt").read_text().splitlines()
        rows = (line.strip().split(" ", 1) for line in lines)
        return [Datum(impath=str(folder / card.images / f"{image}.jpg"), label=labels[name], classname=name)
                for image, name in rows]

    return read("train"), read("val"), read("test")


def sun(card: DatasetCard, folder: Path) -> Splits:
    images = folder / card.images
    labels = {line.strip()[1:]: i for i, line in enumerate((folder / "ClassName.txt").read_text().splitlines())}

    def read(file: str) -> list[Datum]:
        items = []
        for line in (folder / file).read_text().splitlines():
            path = line.strip()[1:]
            scene = path.rsplit("/", 1)[0]
            items.append(Datum(impath=str(images / path), label=labels[scene],
                               classname=" ".join(reversed(scene.split("/")[1:]))))
        return items

    trainval, test = read("Training_01.txt"), read("Testing_01.txt")
    return *split_train_val(trainval), test


def actions(card: DatasetCard, folder: Path) -> Splits:
    lists = folder / "ucfTrainTestlist"
    rows = (line.strip().split(" ") for line in (lists / "classInd.txt").read_text().splitlines())
    labels = {name: int(number) - 1 for number, name in rows}

    def read(file: str) -> list[Datum]:
        items = []
        for line in (lists / file).read_text().splitlines():
            action, video = line.strip().split(" ")[0].split("/")
            name = "_".join(re.findall("[A-Z][^A-Z]*", action))
            items.append(Datum(impath=str(folder / card.images / name / video.replace(".avi", ".jpg")),
                               label=labels[action], classname=name))
        return items

    trainval, test = read("trainlist01.txt"), read("testlist01.txt")
    return *split_train_val(trainval), test


def read_classnames(folder: Path) -> dict[str, str]:
    """{WordNet id: class name} of classnames.txt, in the order of its lines."""
    lines = (folder / "classnames.txt").read_text(encoding="utf-8").splitlines()
    rows = (line.strip().split(" ", 1) for line in lines if line.strip())
    return dict(rows)


def imagenet(card: DatasetCard, folder: Path) -> Splits:
    """The training images are in the order in which the file system lists them, on which the few-shot draws depend.

    CoOp's code leaves its order, and its class names, in preprocessed.pkl: they are kept.
    """
    order, kept = None, folder / "preprocessed.pkl"
    if kept.is_file():
        order = lambda: re_rooted(read_coop_pickle(kept)["train"], folder), kept.stat().st_mtime_ns
    train = Listing(folder / card.images / "train", read_classnames(folder), folder, order)
    names = {Path(sample.impath).name: sample.classname for sample in train.samples}
    return train, None, list(Listing(folder / card.images / "val", names, folder))


def imagenet_numbered(card: DatasetCard, folder: Path) -> Splits:
    """ImageNetV2: folders 0 to 999 in the order of classnames.txt, or, in some copies, WordNet folders."""
    images, items = folder / card.images, []
    for label, (wordnet, name) in enumerate(read_classnames(folder).items()):
        place = next((images / own for own in (str(label), wordnet) if (images / own).is_dir()), images / str(label))
        items += [Datum(impath=str(place / f), label=label, classname=name) for f in listdir_nohidden(place)]
    return items, None, items


def imagenet_folders(card: DatasetCard, folder: Path) -> Splits:
    """ImageNet-Sketch, -A and -R: WordNet folders, labelled in their own order."""
    items = list(Listing(folder / card.images, read_classnames(folder), folder))
    return items, None, items
