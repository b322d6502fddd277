"""Datasets of videos: UCF101, Kinetics-400, Something-Something v2, and your own clips in folders of classes.

Source of the lists: UCF101's ucfTrainTestlist (split 1), Kinetics-400's train.csv and val.csv, Something-Something v2's
JSON files. Nothing is fetched: the archives are too large, or ask for a login.
"""
from __future__ import annotations

import csv
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from dassl.data.task import Task
from dassl.utils import UserError, is_hidden, read_json

from .cards import DatasetCard
from .check import missing, not_found
from .clips import ANIMATED_SUFFIXES, VIDEO_SUFFIXES, ClipReader
from .few_shot import few_shot_splits
from .own_folders import SPLITS
from .readers import Splits, split_train_val

_SUFFIXES = (*VIDEO_SUFFIXES, *ANIMATED_SUFFIXES)
SHARES = 0.3, 0.2                   # of each class for test and validation, where own clips have no such folders

CARDS = {card.name: card for card in (
    DatasetCard("UCF101Videos", "ucf101_videos", "UCF-101", "ucf101", 101, 3783, "a video of a person doing {}.",
                train=7639, val=1898, needs=("UCF-101",), home="https://www.crcv.ucf.edu/data/UCF101.php",
                lists=("ucfTrainTestlist/classInd.txt", "ucfTrainTestlist/trainlist01.txt",
                       "ucfTrainTestlist/testlist01.txt"),
                by_hand="Unpack UCF101.rar (6.5 GB) and UCF101TrainTestSplits-RecognitionTask.zip."),
    DatasetCard("Kinetics400", "kinetics400", "", "kinetics", 400, 0, "a video of {}.",
                needs=("train.csv", "val.csv", "train", "val"), home="https://github.com/cvdfoundation/kinetics-dataset",
                by_hand="Videos are <youtube_id>_<start>_<end>.mp4, times in 6 digits, in train/ and val/ or in "
                        "folders of classes there. Copies differ in size, as videos have disappeared."),
    DatasetCard("SSv2", "ssv2", "20bn-something-something-v2", "ssv2", 174, 24777, "a video of {}.", train=168913,
                needs=("20bn-something-something-v2", "labels/labels.json", "labels/train.json",
                       "labels/validation.json"),
                home="https://www.qualcomm.com/developer/software/something-something-v-2-dataset",
                by_hand="It needs an account there. Videos are <id>.webm."),
)}


class VideoDataset(DatasetBase):
    """A dataset of videos with a card, found under DATASET.ROOT.

    Attributes:
        card, template: its facts.
    """

    card: DatasetCard
    task = Task(reader=ClipReader)

    def __init__(self, cfg):
        self.template = self.card.template
        folder = Path(os.path.abspath(os.path.expanduser(cfg.DATASET.ROOT or "."))) / self.card.folder
        if lacking := missing(self.card, folder):
            raise not_found(self.card, folder, lacking)
        state = random.getstate()
        random.seed(1)                                  # the validation images that CoOp draws for UCF101
        try:
            train, val, test = READERS[self.card.read](self.card, folder)
        except (KeyError, ValueError, IndexError) as error:
            raise UserError(f"The lists of {self.card.name} in {folder} do not fit each other or are damaged "
                            f"({type(error).__name__}: {error}). Fetch them again ({self.card.home}).") from error
        finally:
            random.setstate(state)
        if not train or not test:
            raise not_found(self.card, folder, ["videos of its lists"])
        train, val, test = few_shot_splits(self, cfg, train, val, test, folder)
        super().__init__(train_x=train, val=test if val is None else val, test=test)


def ucf101(card: DatasetCard, folder: Path) -> Splits:
    """Split 1; a fifth of each class's training videos is validation, as CoOp draws it for the middle frames."""
    lists = folder / "ucfTrainTestlist"
    labels = {name: int(number) - 1 for number, name in map(str.split, _lines(lists / "classInd.txt"))}

    def read(file: str) -> list[Datum]:
        items = []
        for line in _lines(lists / file):
            action, video = line.split()[0].split("/")
            name = "_".join(re.findall("[A-Z][^A-Z]*", action))
            items.append(Datum(str(folder / card.images / action / video), labels[action], classname=name))
        return items

    return *split_train_val(read("trainlist01.txt")), read("testlist01.txt")


def kinetics(card: DatasetCard, folder: Path) -> Splits:
    """The videos of the lists that are on disk; the validation list is the test."""
    rows = {split: list(csv.DictReader(_lines(folder / f"{split}.csv"))) for split in ("train", "val")}
    labels = {name: label for label, name in enumerate(sorted({row["label"] for row in rows["train"]}))}

    def read(split: str) -> Iterator[Datum]:
        places = {file.name: str(file) for file in (folder / split).rglob("*") if file.suffix.lower() in _SUFFIXES}
        for row in rows[split]:
            stem = f"{row['youtube_id']}_{int(row['time_start']):06d}_{int(row['time_end']):06d}"
            found = next((places[stem + end] for end in VIDEO_SUFFIXES if stem + end in places), None)
            if found:
                yield Datum(found, labels[row["label"]], classname=row["label"])

    return list(read("train")), None, list(read("val"))


def ssv2(card: DatasetCard, folder: Path) -> Splits:
    """The labelled lists; the validation list is the test."""
    labels = {name: int(label) for name, label in read_json(str(folder / "labels" / "labels.json")).items()}

    def read(split: str) -> list[Datum]:
        items = []
        for row in read_json(str(folder / "labels" / f"{split}.json")):
            name = row["template"].replace("[", "").replace("]", "")
            items.append(Datum(str(folder / card.images / f"{row['id']}.webm"), labels[name], classname=name))
        return items

    return read("train"), None, read("validation")


READERS = {"ucf101": ucf101, "kinetics": kinetics, "ssv2": ssv2}

for _card in CARDS.values():
    DATASET_REGISTRY.register()(type(_card.name, (VideoDataset,), {
        "card": _card, "dataset_dir": _card.folder, "__module__": __name__,
        "__doc__": f"{_card.name}: videos of {_card.classes} classes."}))


@DATASET_REGISTRY.register()
class VideoDir(DatasetBase):
    """Your own clips at DATASET.DIR: a folder for each class, or such folders in train/, val/ and test/.

    A clip is a video file, an animated image, or a folder of frames. Splits that are missing are drawn, the same at
    every run.
    """

    task = Task(reader=ClipReader)

    def __init__(self, cfg):
        if not cfg.DATASET.DIR:
            raise UserError("VideoDir takes clips of your own: set DATASET.DIR to a folder that has one of clips "
                            "for each class.")
        folder = Path(os.path.abspath(os.path.expanduser(cfg.DATASET.DIR)))
        if not folder.is_dir():
            raise UserError(f"There is no folder {folder}. Check DATASET.DIR.")
        self.name, self.template = folder.name, cfg.DATASET.TEMPLATE or "a video of {}."
        parts = {SPLITS[place.name.lower()]: _classes(place) for place in sorted(folder.iterdir())
                 if place.is_dir() and place.name.lower() in SPLITS}
        if "train" not in parts:
            parts = {"train": _classes(folder)}
        names = sorted(parts["train"])
        if len(names) < 2:
            raise UserError(f"{folder} has {len(names)} folders with clips, and a classifier needs at least 2 classes.")
        if others := {name for split in parts.values() for name in split} - set(names):
            raise UserError(f"{folder} has no training clips of {', '.join(sorted(others))}.")
        rng, splits = random.Random(1), {split: [] for split in ("train", "val", "test")}
        for label, name in enumerate(names):
            clips = {split: sorted(part.get(name, ())) for split, part in parts.items()}
            left = rng.sample(clips["train"], len(clips["train"]))
            for split, share in zip(("test", "val"), SHARES, strict=True):
                if split not in clips:
                    count = round(share * len(clips["train"]))
                    clips[split], left = left[:count], left[count:]
            clips["train"] = sorted(left)
            for split, items in splits.items():
                items += [Datum(path, label, classname=name) for path in sorted(clips[split])]
        if not splits["test"]:
            raise UserError(f"{folder} has too few clips to draw a test from: give each class at least 2, or a test/ "
                            "folder.")
        train, val, test = few_shot_splits(self, cfg, splits["train"], splits["val"] or None, splits["test"])
        super().__init__(train_x=train, val=val, test=test)


def _classes(folder: Path) -> dict[str, list[str]]:
    """{class: its clips}."""
    found = {place.name: [str(clip) for clip in place.iterdir() if not is_hidden(clip.name)
                          and (clip.is_dir() or clip.suffix.lower() in _SUFFIXES)]
             for place in folder.iterdir() if place.is_dir() and not is_hidden(place.name)}
    return {name: clips for name, clips in found.items() if clips}


def _lines(file: Path) -> list[str]:
    return [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
