"""The datasets of CoOp's benchmarks: one class, one registered name per card."""
from __future__ import annotations

import logging
import os
import random
from collections.abc import Sequence
from pathlib import Path

from dassl.config import with_values
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from dassl.utils import UserError, read_json, write_json

from . import readers
from .cards import CARDS, DatasetCard
from .check import DatasetNotFound, check_files, check_labels, check_names, misplaced, missing, not_found
from .download import DownloadError, get
from .few_shot import few_shot_splits
from .kept_lists import cache_of
from .listing import sampled
from .published import OTHER, SPLITS, list_sha256, list_verdict, split_rows, split_verdict

logger = logging.getLogger(__name__)

__all__ = ["DatasetNotFound", "FewShotDataset"]


class FewShotDataset(DatasetBase):
    """A dataset with a card, found under DATASET.ROOT or fetched.

    Attributes:
        card, template, descriptions_stem: its facts. folder: where it is, absolute.
        lists: {"split", "few_shot"}: "published", "not the published one", or None where nothing is known to compare.
    """

    card: DatasetCard

    def __init__(self, cfg):
        self.template, self.descriptions_stem = self.card.template, self.card.descriptions
        self.folder = Path(os.path.abspath(os.path.expanduser(cfg.DATASET.ROOT or "."))) / self.card.folder
        self.lists = {"split": None, "few_shot": None}
        find_or_fetch(self.card, self.folder)
        train, val, test = self._splits()
        self._say_class_count(train)
        if self.card.test_only:
            train, _, test = few_shot_splits(self, _without_shots(cfg), train, val, test)
            super().__init__(train_x=train, test=test)
        else:
            train, val, test = few_shot_splits(self, cfg, train, val, test, self.folder)
            super().__init__(train_x=train, val=test if val is None else val, test=test)

    def few_shot_drawn(self, shots: int, seed: int, drawn: dict[str, list[Datum]]) -> None:
        """Note whether the few-shot list of this run is the published one."""
        self.lists["few_shot"] = list_verdict(self.card, shots, seed, list_sha256(drawn, self.folder))

    def _splits(self) -> readers.Splits:
        """CoOp's split file, or the one drawn earlier, or one that is fetched, or a new one by CoOp's rules."""
        card, path = self.card, self._kept()
        if path is None and card.split and not card.lists:
            fetch_split(card, self.folder if os.access(self.folder, os.W_OK) else cache_of(self.folder))
            path = self._kept()
        splits = read_split(card, self.folder, path) if path else draw_split(card, self.folder)
        check_labels(card, [sampled(split) for split in splits if split])
        if path or card.read not in readers.LISTS_FILES:
            check_names(card, self.folder, splits)
            check_files(card, self.folder, splits)
        if card.split:
            rows = split_rows(splits, self.folder / card.images)
            if not path and not self._save(rows):
                return self._splits()           # another run was faster: all runs take its split
            self._note_split(rows, path)
        return splits

    def _kept(self) -> Path | None:
        places = (self.folder, cache_of(self.folder)) if self.card.split else ()
        return next((path for place in places if (path := place / self.card.split).is_file()), None)

    def _note_split(self, rows: dict[str, list], path: Path | None) -> None:
        card = self.card
        self.lists["split"] = split_verdict(card, rows, path)
        if self.lists["split"] == OTHER or (self.lists["split"] is None and not path):
            logger.warning("The train/val/test split of %s%s is not the published one: accuracies differ a little from "
                           "published ones. Delete %s to have it %s again", card.name,
                           f" in {path}" if path else ", drawn here,", card.split, "drawn" if card.lists else "fetched")

    def _save(self, rows: dict[str, list]) -> bool:
        """Keep a drawn split for later runs; False if another run has kept its own meanwhile."""
        for place in (self.folder, cache_of(self.folder)):
            path = place / self.card.split
            mine = path.with_name(f".{path.name}-{os.getpid()}")
            try:
                write_json(rows, str(mine))
                return _put(mine, path)
            except OSError as error:
                logger.info("The split is not kept at %s (%s)", path, error)
        return True

    def _say_class_count(self, train: Sequence[Datum]) -> None:
        if (count := len({d.label for d in sampled(train)})) != self.card.classes:
            logger.warning("%s has %d classes; %d were found in %s", self.card.name, self.card.classes, count,
                           self.folder)


def find_or_fetch(card: DatasetCard, folder: Path, partly: bool = False) -> None:
    """Raises DatasetNotFound if `folder` is not complete and what lacks cannot be fetched.

    Args:
        partly: fetch what can be fetched, even if the rest has to be placed by hand.
    """
    lacking, reason = missing(card, folder), ""
    if not lacking:
        return
    reason = misplaced(card, folder)
    given = {entry for archive in card.archives for entry in archive.gives}
    needs = {entry.split("/")[0] for entry in lacking if entry in card.needs}
    if not reason and (given & needs if partly else given >= needs):
        new = [place for place in (folder, *folder.parents) if not os.path.exists(place)]
        try:
            wanted = {entry.split("/")[0] for entry in lacking}
            get([archive for archive in card.archives if wanted & set(archive.gives)], folder)
            if missing(card, folder) or not card.lists:     # lists give the published split without asking anybody
                fetch_split(card, folder)
        except DownloadError as error:
            reason = f"Downloading it failed: {error}."
            _remove_if_empty(new)
        lacking = missing(card, folder)
    if lacking:
        raise not_found(card, folder, lacking, reason)


def fetch_split(card: DatasetCard, folder: Path) -> None:
    """Bring the published split, with which accuracies compare; warns where no address serves it."""
    reasons = []
    for archive in card.published:
        try:
            get([archive], folder)
            return
        except DownloadError as error:
            reasons.append(str(error))
            (folder / f"{card.split}.part").unlink(missing_ok=True)     # the next address may serve other bytes
    if reasons:
        logger.warning("%s, the published split, cannot be fetched: %s", card.split, "; ".join(dict.fromkeys(reasons)))


def read_split(card: DatasetCard, folder: Path, path: Path) -> readers.Splits:
    """CoOp's split file at `path`. Raises UserError if it is none."""
    logger.info("Reading the split %s", path)
    images = folder / card.images
    try:
        content = read_json(path)
        return tuple([Datum(impath=os.path.join(images, p), label=int(label), classname=name)
                      for p, label, name in content[s]] for s in SPLITS)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a split file of CoOp's: lists train, val and test of [path, label, class name] "
                        f"are expected ({type(error).__name__}: {error}). Fetch it again or delete it.") from error


def draw_split(card: DatasetCard, folder: Path) -> readers.Splits:
    """The split of the raw dataset by CoOp's rules with `random.seed(1)`; the global random stream is left alone.

    Where the dataset has lists of its own, this is the published split (`published_lists.json` and the cards tell).

    Raises:
        UserError: lists or images are missing, or lists disagree.
    """
    before = random.getstate()
    random.seed(1)
    try:
        splits = getattr(readers, card.read)(card, folder)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise not_found(card, folder, [error.filename], misplaced(card, folder)) from error
    except (KeyError, ValueError, IndexError) as error:
        raise UserError(f"{card.name}: the lists in {folder} disagree with each other or with the class names, or are "
                        f"damaged ({type(error).__name__}: {error}). Fetch them again ({card.home}).") from error
    finally:
        random.setstate(before)
    if not all(s for s in splits if s is not None):
        raise not_found(card, folder, [f"images in {card.images or 'it'}"], misplaced(card, folder))
    return splits


def _put(source: Path, target: Path) -> bool:
    """Rename `source`; if `target` exists already, remove `source` and return False."""
    try:
        os.link(source, target)             # unlike a rename, this never replaces a file
    except FileExistsError:
        return False
    except OSError:                         # a file system without links
        os.replace(source, target)
    finally:
        source.unlink(missing_ok=True)
    logger.info("Wrote the split %s", target)
    return True


def _without_shots(cfg):
    """A test-only set is never few-shot: all of it is tested on."""
    return with_values(cfg, {"DATASET.NUM_SHOTS": -1})


def _remove_if_empty(folders: list[Path]) -> None:
    """Take away what a failed download made, innermost first."""
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return


for _card in CARDS.values():
    DATASET_REGISTRY.register()(type(_card.name, (FewShotDataset,), {
        "card": _card, "dataset_dir": _card.folder, "__module__": __name__,
        "__doc__": f"{_card.name}: {_card.classes} classes, {_card.test:,} test images."}))
