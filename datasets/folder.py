"""Your own images as a dataset: `--dataset-dir PATH` of tools/train.py and tools/sweep.py, or DATASET.NAME ImageDir."""
from __future__ import annotations

import hashlib
import logging
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from dassl.config import CfgNode
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from dassl.utils import UserError
from dassl.utils.logger import CONSOLE

from .few_shot import few_shot_splits, subsample_classes
from .own_folders import LAYOUT, Row
from .own_lists import read_classnames, read_own

logger = logging.getLogger(__name__)

SHARES = {"test": 0.3, "val": 0.2}      # of each class, where a split is drawn; CoOp's shares for datasets without one
SPLITS = ("train", "val", "test")
_LOOK = 200                             # images by which class names are compared with labels before training


def extend_cfg(cfg: CfgNode) -> None:
    cfg.DATASET.DIR = ""                # folder, CSV or JSON of your own images, for the dataset ImageDir
    cfg.DATASET.TEMPLATE = ""           # sentence with one {} for their class names; "": "a photo of a {}."
    cfg.DATASET.CLASSNAMES = ""         # file of their class names; "": the names of the folders
    cfg.DATASET.CLASSES = ()            # all classes in the order of their labels; (): in order of their folders
    cfg.DATASET.TEST_ONLY = False       # nothing is learned (--eval-only on another folder than the run's own): images
                                        # under test/ are the test, without one all of them


@DATASET_REGISTRY.register()
class ImageDir(DatasetBase):
    """Images in folders of classes or in a list; splits that are missing are drawn, the same at every run.

    Attributes:
        name: of the folder. template: its sentence.
        look, look_split: up to 200 images of val, else of test, for a first look; the same for every seed.
    """

    def __init__(self, cfg):
        if not cfg.DATASET.DIR:
            raise UserError(f"ImageDir are images of your own: say where with --dataset-dir PATH. {LAYOUT}")
        path = _path(cfg)
        self.name = path.name if path.is_dir() else path.stem
        self.template = checked_template(cfg.DATASET.TEMPLATE or "a photo of a {}.")
        rows, names = _named_rows(cfg, path)
        keys = sorted(names)
        _check_names([names[key] for key in keys], path, known=len(cfg.DATASET.CLASSES))
        if cfg.DATASET.TEST_ONLY:
            splits, drawn = {"train": rows, "val": [], "test": rows}, []
        else:
            splits, drawn = split_rows(rows, path if path.is_dir() else path.parent)
            _check_splits(splits, names, path)
        labels = {key: label for label, key in enumerate(keys)}
        whole = {split: [Datum(impath=row.path, label=labels[row.key], classname=names[row.key]) for row in items]
                 for split, items in splits.items()}
        self._tell(whole, len(keys), drawn, cfg.DATASET.TEST_ONLY)
        _, *seen = halves = subsample_classes(*whole.values(), half=cfg.DATASET.SUBSAMPLE_CLASSES)
        train, val, test = halves if cfg.DATASET.TEST_ONLY else \
            few_shot_splits(self, cfg, whole["train"], whole["val"] or None, whole["test"])
        if cfg.DATASET.CLASSES:
            train, val, test, *seen = (_relabelled(items, cfg.DATASET.CLASSES) for items in (train, val, test, *seen))
        self.look_split, look = ("val", seen[0]) if seen[0] else ("test", seen[1])
        self.look = look[::max(1, len(look) // _LOOK)][:_LOOK]
        super().__init__(train_x=train, val=val, test=test)
        if cfg.DATASET.CLASSES:             # also those of which there is no image
            self._classnames, self._num_classes = list(cfg.DATASET.CLASSES), len(cfg.DATASET.CLASSES)
            self._lab2cname = dict(enumerate(self._classnames))

    def _tell(self, whole: dict, classes: int, drawn: list[str], test_only: bool) -> None:
        if test_only:
            logger.info("%s: %d classes; %s test images: nothing is learned from this folder.", self.name, classes,
                        f"{len(whole['test']):,}", extra=CONSOLE)
            return
        sizes = ", ".join(f"{len(whole[split]):,} {split}" for split in SPLITS)
        how = (f" {' and '.join(f'{split} ({SHARES[split]:.0%})' for split in drawn)} drawn here from the images of "
               "each class, the same at every run." if drawn else "")
        logger.info("%s: %d classes; %s images.%s", self.name, classes, sizes, how, extra=CONSOLE)


def class_names(cfg: CfgNode) -> list[str]:
    """Those of the images at DATASET.DIR, in order, with all the settings of the dataset but DATASET.CLASSES."""
    rows, names = _named_rows(cfg, _path(cfg))
    items = [Datum(label=label, classname=names[key]) for label, key in enumerate(sorted(names))]
    return [item.classname for item in subsample_classes(items, half=cfg.DATASET.SUBSAMPLE_CLASSES)[0]]


def _path(cfg: CfgNode) -> Path:
    return Path(os.path.abspath(os.path.expanduser(cfg.DATASET.DIR)))


def _named_rows(cfg: CfgNode, path: Path) -> tuple[list[Row], dict[int | str, str]]:
    """The images (where nothing is learned, those to test on), and the name of each of their classes."""
    rows = read_own(path, cfg.DATASET.TEST_ONLY)
    names = {row.key: row.name for row in rows}
    if cfg.DATASET.CLASSNAMES:
        keys = sorted(names)
        names = dict(zip(keys, read_classnames(Path(cfg.DATASET.CLASSNAMES).expanduser(), keys,
                                               [names[key] for key in keys]), strict=True))
    if cfg.DATASET.TEST_ONLY:
        rows = [row for row in rows if row.split == "test"] or rows
        names = {row.key: names[row.key] for row in rows}
    return rows, names


def _relabelled(items: list[Datum] | None, classes: Sequence[str]) -> list[Datum] | None:
    labels = {name: label for label, name in enumerate(classes)}
    return items and [Datum(impath=d.impath, label=labels[d.classname], classname=d.classname) for d in items]


def checked_template(template: str) -> str:
    """Raises UserError unless there is exactly one place for the class name."""
    if template.count("{}") != 1 or template.replace("{}", "").count("{") + template.replace("{}", "").count("}"):
        raise UserError("A template must have one {} for the class name, as in \"a photo of a {}.\", got "
                        f"{template!r}.")
    return template


def split_rows(rows: list[Row], base: Path) -> tuple[dict[str, list[Row]], list[str]]:
    """{split: rows}, and the names of the splits that were drawn because there were none.

    Which images go where follows from a hash of their names below `base`: it is the same at every run and in every
    place, and an image more moves few others.
    """
    splits = {split: [row for row in rows if row.split == split] for split in SPLITS}
    splits["train"] += [row for row in rows if not row.split]
    drawn = [split for split in ("val", "test") if not splits[split]]
    by_class: dict = defaultdict(list)
    for row in splits["train"]:
        by_class[row.key].append(row)
    chosen: dict[str, str] = {}
    for items in by_class.values():
        shuffled = sorted(items, key=lambda row: hashlib.sha256(
            _below(row.path, base).encode(errors="surrogateescape")).hexdigest())
        for split, share in SHARES.items():
            if split in drawn:
                count = min(max(1, round(share * len(items))), len(shuffled) - 1)       # training keeps one at least
                chosen |= {row.path: split for row in shuffled[:count]}
                shuffled = shuffled[count:]
    for split in drawn:
        splits[split] = [row for row in splits["train"] if chosen.get(row.path) == split]
    splits["train"] = [row for row in splits["train"] if row.path not in chosen]
    return splits, drawn


def _below(path: str, base: Path) -> str:
    return os.path.relpath(path, base).replace(os.sep, "/")


def _check_splits(splits: dict[str, list[Row]], names: dict[int | str, str], path: Path) -> None:
    """Some images to test on, training images of every class, and no classes that training lacks."""
    if not splits["test"]:
        raise UserError(f"{path} has {len(splits['train'])} images of {len(names)} classes: none can be spared for a "
                        "test. Two images of some class are needed, better ten of each.")
    learned = {row.key for row in splits["train"]}
    for split in ("val", "test"):
        if strange := sorted({str(row.name) for row in splits[split] if row.key not in learned}):
            raise UserError(f"{path}: {split} has images of {', '.join(map(repr, strange[:5]))}, and train has none; "
                            f"train has {', '.join(sorted(map(str, learned))[:10])}. Names of classes must be the same "
                            "in every split.")
        seen = {row.key for row in splits[split]}
        if absent := [names[key] for key in sorted(names) if key not in seen]:
            logger.warning("No %s images of %d of the %d classes: %s", split, len(absent), len(names),
                           ", ".join(absent[:5]))
    if absent := [names[key] for key in sorted(names) if key not in learned]:
        raise UserError(f"{path}: no training images of {', '.join(absent[:5])}.")


def _as_clip_reads(name: str) -> str:
    """Without what is lost before or in the tokenizer: capitals, spaces, ways to spell one letter, invisible marks."""
    seen = "".join(c for c in unicodedata.normalize("NFKC", name) if c.isspace() or unicodedata.category(c)[0] != "C")
    return " ".join(seen.casefold().split())


def _check_names(names: list[str], path: Path, known: int) -> None:
    """At least two classes (`known`: those of the run that is tested), whose names mean something."""
    if max(len(names), known) < 2:
        raise UserError(f"{path} holds one class, {names[0]!r}, and there is nothing to tell it from. {LAYOUT}")
    if unreadable := [name for name in names if re.search("[\ud800-\udfff]", name)]:
        raise UserError(f"{path}: the name of the class {unreadable[0]!r} is not UTF-8, so CLIP cannot read it. Rename "
                        "its folder, or give the words with --classnames FILE.")
    plain: dict[str, str] = {}
    for name in names:
        if (other := plain.setdefault(_as_clip_reads(name), name)) != name:
            logger.warning("The classes %s and %s differ only in capitals, spaces or characters that cannot be seen: "
                           "are they one class?", ascii(other), ascii(name))
    if meaningless := [name for name in names if re.fullmatch(r"n\d{8}|[\d_.-]+|nan|none|null|n/?a|true|false", name,
                                                              re.IGNORECASE)]:
        logger.warning("Names such as %r say nothing to CLIP: give the words with --classnames FILE", meaningless[0])
    if len(set(names)) < len(names):
        logger.warning("Several classes are called %r: their sentences are the same, so they cannot be distinguished",
                       next(name for name in names if names.count(name) > 1))
