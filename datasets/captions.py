"""Pairs of an image and its caption: a list of your own, and those of the embedded datasets, made from attributes.

A dataset with captions has `captions`, {path of an image: its captions}; trainers of pairs draw one of them at a time.
"""
from __future__ import annotations

import logging
from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from dassl.utils import UserError
from dassl.utils.logger import CONSOLE
from datasets.digits import Digits
from datasets.embedded import shape_backgrounds, shape_combinations
from datasets.folder import split_rows
from datasets.own_descriptions import digit_captions, shape_captions
from datasets.own_folders import Row
from datasets.own_lists import read_pairs
from datasets.rendering import BACKGROUNDS
from datasets.shapes import Shapes, class_name

logger = logging.getLogger(__name__)

ENDINGS = (".csv", ".tsv", ".txt", ".jsonl")
LISTS = ("captions.csv", "captions.tsv", "captions.jsonl", "metadata.csv", "metadata.jsonl")
LAYOUT = ("Give DATASET.DIR: a .csv, .tsv or .jsonl with path, caption and, if you like, split, whose paths count from "
          f"its folder; or a folder with one of {', '.join(LISTS)} in it.")


@DATASET_REGISTRY.register()
class DigitsCaptions(Digits):
    """`Digits`, each of whose images has captions that name its digit."""

    def __init__(self, cfg):
        super().__init__(cfg)
        self.captions = {item.impath: digit_captions(item.classname)
                         for split in (self.train_x, self.val, self.test) for item in split}


@DATASET_REGISTRY.register()
class ShapesCaptions(Shapes):
    """`Shapes`, each of whose images has captions of its shape, colour, texture and background."""

    def __init__(self, cfg):
        super().__init__(cfg)
        behind = {class_name(own): shape_backgrounds(own) for own in shape_combinations()}
        self.captions = {item.impath: shape_captions(self.attributes[item.classname], BACKGROUNDS[
            behind[item.classname][int(Path(item.impath).stem)]])
            for split in (self.train_x, self.val, self.test) for item in split}


@DATASET_REGISTRY.register()
class ImageCaptions(DatasetBase):
    """Images with captions and no classes; splits that are missing are drawn by image, the same at every run.

    The test asks which caption is an image's own among those of all validation and test images, each of which counts
    with its first one: these are `classnames`, and accuracy is the recall of the first answer.
    """

    template, captions_alone = "{}", ("learns from classes, and ImageCaptions has captions alone. Take a trainer that "
                                      "learns from pairs, such as FLYP or CyCLIP, or a dataset of classes.")

    def __init__(self, cfg):
        file = list_of(cfg.DATASET.DIR)
        shots, half = cfg.DATASET.NUM_SHOTS, cfg.DATASET.get("SUBSAMPLE_CLASSES", "all")
        if shots >= 1 or half != "all":
            raise UserError("ImageCaptions has no classes of which to draw shots or halves, got DATASET.NUM_SHOTS "
                            f"{shots} and SUBSAMPLE_CLASSES {half}. Leave both out.")
        self.captions: dict[str, tuple[str, ...]] = {}
        splits_of = {}
        for path, caption, split in read_pairs(file):
            self.captions[path] = tuple(dict.fromkeys((*self.captions.get(path, ()), caption)))
            splits_of[path] = split
        parts, drawn = split_rows([Row(path, "", "", split) for path, split in sorted(splits_of.items())], file.parent)
        if empty := [name for name in ("train", "test") if not parts[name]]:
            raise UserError(f"{file} leaves no {empty[0]} images of {len(splits_of)}. Name more, or give them a split.")
        names = list(dict.fromkeys(self.captions[row.path][0] for row in (*parts["val"], *parts["test"])))
        if len(names) < 2:
            raise UserError(f"{file} has one caption for all validation and test images, {names[0]!r}: there is "
                            "nothing to tell it from.")
        labels = {name: label for label, name in enumerate(names)}
        train, val, test = ([Datum(impath=row.path, label=labels.get(self.captions[row.path][0], 0),
                                   classname=names[labels.get(self.captions[row.path][0], 0)]) for row in parts[split]]
                            for split in ("train", "val", "test"))
        logger.info("%s: %d pairs; images: %d train, %d val, %d test%s; %d captions are distinct in the test", file,
                    sum(map(len, self.captions.values())), len(train), len(val), len(test),
                    f" ({' and '.join(drawn)} drawn here)" if drawn else "", len(names), extra=CONSOLE)
        super().__init__(train_x=train, val=val, test=test)
        self._classnames, self._num_classes, self._lab2cname = names, len(names), dict(enumerate(names))


def list_of(where: str) -> Path:
    """The list that DATASET.DIR names, or the one in the folder that it names.

    Raises:
        UserError: nothing, or no such list; several of them in a folder.
    """
    path = Path(where).expanduser().absolute()
    if not where or not path.exists():
        raise UserError(f"There is no list of image-caption pairs at {where or '(nothing)'}. {LAYOUT}")
    if path.is_dir():
        lists = [path / name for name in LISTS if (path / name).is_file()]
        if len(lists) != 1:
            which = " and ".join(file.name for file in lists) or "none"
            raise UserError(f"A folder of pairs has one list, and {path} has {which}. {LAYOUT}")
        return lists[0]
    if path.suffix.lower() not in ENDINGS:
        raise UserError(f"{path} is no list of pairs: its name ends in {path.suffix or 'nothing'}. {LAYOUT}")
    return path
