"""What can be wrong with a dataset's folder, each told in one paragraph with the way out."""
from __future__ import annotations

import os
from pathlib import Path

from dassl.data.datasets import Datum
from dassl.utils import UserError

from .cards import DatasetCard

MEANWHILE = "Meanwhile `bash scripts/dapt.sh digits 16` runs with embedded data and needs no download."


class DatasetNotFound(UserError, FileNotFoundError):
    """The images are not on this machine."""

    __str__ = Exception.__str__


def missing(card: DatasetCard, folder: Path) -> list[str]:
    """What of the card's entries `folder` lacks; the raw lists count only where the split file is absent."""
    lists = () if card.split and (folder / card.split).is_file() else card.lists
    return [entry for entry in (*card.needs, *lists) if not (folder / entry).exists()]


def misplaced(card: DatasetCard, folder: Path) -> str:
    """Why `folder` lacks things although the user has data, or ""; then nothing should be downloaded."""
    root = folder.parent
    entries = (*card.needs, *card.lists)
    own = root.name == card.folder or entries != ("images",)       # many a folder holds "images"
    if own and not folder.exists() and all((root / entry).exists() for entry in entries):
        return (f"{root} looks like the dataset's own folder, and --root (or DATA) is the folder above it"
                + (f": give {root.parent}." if root.name == card.folder else
                   f": name it {card.folder}, or link it: ln -s {root} {root.parent / card.folder}, and give "
                   f"{root.parent}."))
    if card.name == "OxfordPets" and (named := _stanford_dogs(folder)):
        return (f"{named} has a WordNet name: this looks like Stanford Dogs. OxfordPets is the Oxford-IIIT Pet "
                "dataset, whose images are named by breed (Abyssinian_1.jpg).")
    return ""


def _stanford_dogs(folder: Path) -> Path | None:
    """A folder like Images/n02085620-Chihuahua, which Stanford Dogs has and Oxford-IIIT Pet has not."""
    return next((path for images in ("images", "Images") for path in sorted((folder / images).glob("n0[0-9]*"))
                 if path.is_dir()), None)


def not_found(card: DatasetCard, folder: Path, lacking: list[str], reason: str = "") -> DatasetNotFound:
    """The paragraph for an absent or incomplete dataset.

    Args:
        reason: a sentence on why, e.g. that the download failed.
    """
    state = "is incomplete" if folder.is_dir() else "was not found"
    entries = [*card.needs, *card.lists]
    tree = ", ".join(f"{card.folder}/{entry}" for entry in entries)
    split = (f" For the published split place {card.split} ({card.split_url}) in {card.folder}/"
             f"{'; only the images are needed then' if card.lists else ''}." if card.split else "")
    urls = " and ".join(archive.url for archive in card.archives)
    source = f"get {urls} ({card.home})" if urls else f"get it as {card.home} tells"
    return DatasetNotFound(
        f"{card.name} {state}: looked in {folder} for {', '.join(lacking)}.{f' {reason}' if reason else ''} "
        f"To place it by hand, {source} and unpack it so that {folder.parent} holds {tree}.{split} If you have it "
        f"elsewhere, name the folder that holds {card.folder}/ with DATA=... or --root. {MEANWHILE}")


def check_files(card: DatasetCard, folder: Path, splits) -> None:
    """Raises DatasetNotFound if images of the split are not on disk, with the first five and their number."""
    files = [d.impath for s in splits if s for d in s]
    absent = [path for path in files if not os.path.exists(path)]
    if absent:
        why = misplaced(card, folder)
        raise DatasetNotFound(
            f"{card.name}: {len(absent):,} of {len(files):,} images of the split are missing, first "
            f"{', '.join(absent[:5])}. {why or f'Unpack the dataset again, whole, from {card.home}.'} {MEANWHILE}")


def check_labels(card: DatasetCard, splits) -> None:
    """Raises UserError if a label stands for two class names. (One name for two labels is right: ImageNet has some.)"""
    first: dict[int, Datum] = {}
    for item in (d for s in splits if s for d in s):
        other = first.setdefault(item.label, item)
        if other.classname != item.classname:
            raise UserError(
                f"{card.name}: labels and class names disagree: label {item.label} is {other.classname!r} for "
                f"{other.impath} and {item.classname!r} for {item.impath}. Each label stands for one class: fetch "
                f"{card.split or 'the lists'} again ({card.home}).")
