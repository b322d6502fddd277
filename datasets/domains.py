"""Datasets of several domains: trained on some, tested on one that was left out, in DomainBed's splits.

Source: Gulrajani and Lopez-Paz (ICLR 2021), facebookresearch/DomainBed domainbed/scripts/train.py and lib/misc.py: each
domain is split 80/20 by a seed made of the run's and the domain's number. Training sees the 80 % of its domains; a
model is chosen on their 20 % (DATASET.SELECT_ON training) or on that of the domain left out (target, their "oracle");
the accuracy is that on the 80 % of the domain left out. Several layouts of the same images give the same splits.
"""
from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dassl.config import with_values
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from dassl.utils import UserError, is_hidden
from dassl.utils.registry import nearest

from .benchmarks import DatasetNotFound
from .check import MEANWHILE
from .domain_cards import CARDS, DomainCard
from .download import DownloadError, get
from .few_shot import subsample_classes
from .shapes import Shapes, ShapesClutter, ShapesLowContrast, ShapesNoise, ShapesRecoloured, ShapesSketch

logger = logging.getLogger(__name__)

_PARTS = {"train", "val", "crossval", "test"}         # folders between a domain and its classes in Dassl's layouts
_HOLDOUT = 0.2
SELECT_ON = ("training", "target")


class LeftOutDomain(DatasetBase):
    """Images of domains, of which DATASET.TARGET_DOMAINS is tested and the other DATASET.SOURCE_DOMAINS are trained on.

    `domains` names all, in the order of their numbers; `of_domain(name)` gives all images of one, in a fixed order.

    Attributes:
        test_domains, val_domains: names of the test and validation images' domains, by index.
    """

    domains: Sequence[str] = ()

    def of_domain(self, name: str) -> list[Datum]:
        raise NotImplementedError

    def __init__(self, cfg):
        c = cfg.DATASET
        target = list(c.TARGET_DOMAINS)
        source = [name for name in (c.SOURCE_DOMAINS or self.domains) if name not in target]
        self._check(source, target, c)
        splits = {name: split(self.of_domain(name), cfg.SEED, list(self.domains).index(name))
                  for name in (*source, *target)}
        train = [item for number, name in enumerate(source)
                 for item in _of(number, self._drawn(splits[name][0], c.NUM_SHOTS))]
        self.val_domains = source if c.SELECT_ON == "training" else target
        self.val_is = f"20 % of {', '.join(self.val_domains)}" + (
            "" if c.SELECT_ON == "training" else ", the domain that is tested")
        val = [item for number, name in enumerate(self.val_domains) for item in _of(number, splits[name][1])]
        test = [item for number, name in enumerate(target) for item in _of(number, splits[name][0])]
        self.test_domains = target
        train, val, test = subsample_classes(train, val, test, half=c.get("SUBSAMPLE_CLASSES", "all"))
        super().__init__(train_x=train, val=val, test=test)

    def _drawn(self, items: list[Datum], shots: int) -> list[Datum]:
        return self.generate_fewshot_dataset(items, num_shots=shots)

    def _check(self, source: Sequence[str], target: Sequence[str], c) -> None:
        known = ", ".join(self.domains)
        for name in (*source, *target):
            if name not in self.domains:
                raise UserError(f"{c.NAME} has no domain {name!r}.{nearest(name, self.domains)} It has {known}.")
        for names in (source, target):
            if twice := {name for name in names if names.count(name) > 1}:
                raise UserError(f"{c.NAME} is asked for the domain {min(twice)!r} twice, so its images would count "
                                "twice. Name each domain once.")
        if not target:
            raise UserError(f"{c.NAME} is tested on a domain that is left out of training; name it in "
                            f"DATASET.TARGET_DOMAINS, or use --protocol lodo, which leaves out each of {known}.")
        if not source:
            raise UserError(f"No domain of {c.NAME} is left to train on: DATASET.TARGET_DOMAINS has all of "
                            f"{', '.join(c.SOURCE_DOMAINS) or known}. Leave one of them out there.")
        if c.SELECT_ON not in SELECT_ON:
            raise UserError(f"DATASET.SELECT_ON must be training or target, got {c.SELECT_ON!r}.")


def split(items: Sequence, seed: int, number: int) -> tuple[list, list]:
    """DomainBed's 80 % and 20 % of a domain's items.

    Args:
        items: in the order of torchvision's ImageFolder. seed: DomainBed's trial_seed. number: of the domain.
    """
    order = list(range(len(items)))
    digest = hashlib.md5(str((seed, number)).encode()).hexdigest()
    np.random.RandomState(int(digest, 16) % 2 ** 31).shuffle(order)
    held = int(len(order) * _HOLDOUT)
    return [items[i] for i in order[held:]], [items[i] for i in order[:held]]


def _of(number: int, items: Sequence[Datum]) -> list[Datum]:
    return [Datum(item.impath, item.label, number, item.classname) for item in items]


class DomainFolders(LeftOutDomain):
    """A dataset with a card, found under DATASET.ROOT or fetched."""

    card: DomainCard

    def __init__(self, cfg):
        self.template, self.domains = self.card.template, list(self.card.domains)
        self.root = Path(os.path.abspath(os.path.expanduser(cfg.DATASET.ROOT or ".")))
        self.found = self._find()
        self._names = self._class_names()
        super().__init__(cfg)

    @classmethod
    def listed(cls, root: Path) -> list:
        """Classes, no sizes of splits, which depend on the domain left out, and what lies below `root`."""
        found = len(place_of_domains(cls.card, root))
        return [cls.card.classes, "-", "-", "-", "present" if found == len(cls.card.domains) else
                f"{found} of {len(cls.card.domains)} domains" if found else "absent"]

    def _find(self) -> dict[str, Path]:
        """The folder of each domain."""
        found = place_of_domains(self.card, self.root)
        if not found and self.card.archives:
            try:
                get(self.card.archives, self.root / self.card.folder)
            except DownloadError as error:
                raise self._not_found(f"Downloading it failed: {error}.") from error
            found = place_of_domains(self.card, self.root)
        if lacking := [name for name in self.domains if name not in found]:
            raise self._not_found(f"The domain{'s' * (len(lacking) > 1)} {', '.join(lacking)} "
                                  f"{'are' if len(lacking) > 1 else 'is'} missing." if found else "")
        return found

    def _not_found(self, reason: str) -> DatasetNotFound:
        card = self.card
        places = ", ".join(str(self.root / place) for place in card.places)
        ways = card.by_hand or f"Its archive: {card.archives[0].url}, unpacked into {self.root / card.folder}."
        return DatasetNotFound(f"{card.name} was not found: a folder for each of {', '.join(self.domains)}, with one "
                               f"folder per class, in any of {places}. {reason} {ways} {MEANWHILE}")

    def _class_names(self) -> list[str]:
        """Of all domains, in the order of their folders' names, which are their labels."""
        each = {name: {folder.name for part in _parts(path) for folder in _folders(part)}
                for name, path in self.found.items()}
        names = sorted(set().union(*each.values()))
        if len(names) != self.card.classes:
            logger.warning("%s has %d classes; %d were found in %s", self.card.name, self.card.classes, len(names),
                           next(iter(self.found.values())).parent)
        return names

    def of_domain(self, name: str) -> list[Datum]:
        """By class and file name, as torchvision's ImageFolder lists DomainBed's own layout."""
        files = [(folder.name, file) for part in _parts(self.found[name]) for folder in _folders(part)
                 for file in folder.iterdir() if file.is_file() and not is_hidden(file.name)]
        if not files:
            raise UserError(f"{self.found[name]} has no images. Check that {self.card.name} was unpacked completely.")
        files.sort(key=lambda pair: (pair[0], pair[1].name))
        labels = {folder: label for label, folder in enumerate(self._names)}
        return [Datum(str(file), labels[folder], 0, self.card.rename.get(folder, folder).lower())
                for folder, file in files]


def place_of_domains(card: DomainCard, root: Path) -> dict[str, Path]:
    """The domains' folders in the place that has most of them; {} where none has any."""
    best: dict[str, Path] = {}
    for place in card.places:
        here = {folder.name.lower(): folder for folder in _folders(root / place)}
        found = {name: here[other] for name, others in card.domains.items() for other in others if other in here}
        best = max(best, found, key=len)
    return best


def _parts(domain: Path) -> list[Path]:
    """The folders that hold a domain's class folders."""
    inside = _folders(domain)
    return inside if inside and {folder.name for folder in inside} <= _PARTS else [domain]


def _folders(place: Path) -> list[Path]:
    return sorted(entry for entry in place.iterdir() if entry.is_dir() and not is_hidden(entry.name)) \
        if place.is_dir() else []


_SHAPES = {"plain": Shapes, "noise": ShapesNoise, "clutter": ShapesClutter, "sketch": ShapesSketch,
           "recoloured": ShapesRecoloured, "lowcontrast": ShapesLowContrast}


@DATASET_REGISTRY.register()
class ShapesDomains(LeftOutDomain):
    """The embedded shapes and their five shifts as six domains that share no drawing: 13 or 14 of each of 48 classes.

    Drawing i of a class is in domain i modulo 6: DomainBed's RotatedMNIST deals its images out alike.
    """

    dataset_dir, template, descriptions_stem = "shapes", Shapes.template, Shapes.descriptions_stem
    domains = list(_SHAPES)

    def __init__(self, cfg):
        self._all_images = everything(cfg)
        super().__init__(cfg)

    def of_domain(self, name: str) -> list[Datum]:
        whole, number = _SHAPES[name](self._all_images), list(_SHAPES).index(name)
        self.attributes = whole.attributes
        items = sorted((*whole.train_x, *whole.val, *whole.test), key=lambda item: (item.label, item.impath))
        return [item for item in items if int(Path(item.impath).stem) % len(_SHAPES) == number]


def everything(cfg):
    """The config with no few-shot draw and no half of the classes."""
    return with_values(cfg, {"DATASET.NUM_SHOTS": -1, "DATASET.SUBSAMPLE_CLASSES": "all"})


for _card in CARDS.values():
    DATASET_REGISTRY.register()(type(_card.name, (DomainFolders,), {
        "card": _card, "dataset_dir": _card.folder, "__module__": __name__,
        "__doc__": f"{_card.name}: {_card.classes} classes in {len(_card.domains)} domains."}))
