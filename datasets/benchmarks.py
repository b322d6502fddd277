"""The datasets of CoOp's benchmarks: one class, one registered name per card."""
from __future__ import annotations

import logging
import os
from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from dassl.utils import UserError, read_json, write_json

from . import readers
from .cards import CARDS, DatasetCard
from .download import DownloadError, get
from .few_shot import few_shot_splits

logger = logging.getLogger(__name__)


class DatasetNotFound(UserError, FileNotFoundError):
    """The images are not on this machine."""

    __str__ = Exception.__str__


class FewShotDataset(DatasetBase):
    """A dataset with a card.

    Attributes:
        card, template: its facts. folder: where it was found.
    """

    card: DatasetCard

    def __init__(self, cfg):
        self.template = self.card.template
        self.folder = Path(cfg.DATASET.ROOT or ".").expanduser() / self.card.folder
        self._find_or_fetch()
        train, val, test = self._splits()
        if self.card.test_only:
            train, val, test = few_shot_splits(self, _without_shots(cfg), train, val, test)
        else:
            train, val, test = few_shot_splits(self, cfg, train, val, test, self.folder)
        super().__init__(train_x=train, val=test if val is None and not self.card.test_only else val, test=test)

    def _missing(self) -> list[str]:
        return [need for need in self.card.needs if not (self.folder / need).exists()]

    def _find_or_fetch(self) -> None:
        if not self._missing():
            return
        card, reason = self.card, ""
        if card.urls:
            new = [place for place in (self.folder, self.folder.parent) if not place.exists()]
            try:
                get(card.urls, self.folder)
            except (DownloadError, OSError) as error:
                reason = f" Downloading it failed: {error}."
                _remove_if_empty(new)
        if missing := self._missing():
            root = self.folder.parent
            nearer = (f" {root} looks like the dataset's own folder: give its parent {root.parent} as --root."
                      if all((root / need).exists() for need in card.needs) else "")
            raise DatasetNotFound(
                f"{card.name} is not complete: {', '.join(missing)} not found in {self.folder.absolute()}.{nearer}{reason} "
                f"Get it from {card.home}, so that {self.folder.absolute()} holds {', '.join(card.needs)}"
                f"{f' (and {card.split} for the published split)' if card.split else ''}, or name another folder with "
                "DATA=... or --root. Meanwhile `bash scripts/dapt.sh digits 16` runs with embedded data and needs no "
                "download.")

    def _splits(self):
        card, images = self.card, self.folder / self.card.images
        path = self.folder / card.split
        if card.split and path.is_file():
            logger.info("Reading the split %s", path)
            try:
                content = read_json(path)
                splits = [[Datum(impath=os.path.join(images, p), label=int(label), classname=name)
                           for p, label, name in content[s]] for s in ("train", "val", "test")]
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(f"{path} is not a split file of CoOp's: lists train, val and test of [path, label, class "
                                f"name] are expected ({type(error).__name__}: {error}). Fetch it again or delete it.") from error
        else:
            try:
                splits = getattr(readers, card.read)(card, self.folder)
            except FileNotFoundError as error:
                raise DatasetNotFound(f"{card.name} lacks {error.filename}, which its split is drawn from. Get it from "
                                      f"{card.home}, or place {card.split or 'the complete dataset'} in {self.folder}.") from error
            if card.split:
                self._save(path, images, splits)
        self._check_files(splits)
        return splits

    def _check_files(self, splits) -> None:
        files = [d.impath for s in splits if s for d in s]
        missing = [p for p in files if not os.path.exists(p)]
        if not missing:
            return
        found = sorted(os.listdir(self.folder / self.card.images))[:3] if (self.folder / self.card.images).is_dir() else []
        synsets = any(name.startswith("n0") for name in found)
        cause = (" These folders have WordNet names: this looks like Stanford Dogs; Oxford-IIIT Pet is another dataset."
                 if synsets and self.card.name == "OxfordPets" else "")
        raise DatasetNotFound(f"{self.card.name}: {len(missing)} of {len(files)} images of the split are missing, first "
                              f"{', '.join(missing[:5])}. Found in {self.folder / self.card.images}: "
                              f"{', '.join(found) or 'nothing'} ...{cause} Unpack the dataset again from {self.card.home}.")

    @staticmethod
    def _save(path: Path, images: Path, splits) -> None:
        rows = {name: [[os.path.relpath(d.impath, images), d.label, d.classname] for d in items]
                for name, items in zip(("train", "val", "test"), splits, strict=True)}
        try:
            write_json(rows, str(path))
            logger.info("Wrote the split %s", path)
        except OSError as error:
            logger.info("The split is not kept (%s)", error)


def _without_shots(cfg):
    """A test-only set is never few-shot: all of it is tested on."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.DATASET.NUM_SHOTS = -1
    return cfg


def _remove_if_empty(folders: list[Path]) -> None:
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return


for _card in CARDS.values():
    DATASET_REGISTRY.register()(type(_card.name, (FewShotDataset,), {
        "card": _card, "__module__": __name__, "__doc__": f"{_card.name}: {_card.classes} classes, {_card.test:,} test images."}))
