"""What can be wrong with a dataset's folder, each told in one paragraph with the way out."""
from __future__ import annotations

import os
from pathlib import Path

from dassl.data.datasets import Datum
from dassl.utils import UserError

from .cards import CARDS, DatasetCard

MEANWHILE = "Meanwhile `bash scripts/dapt.sh digits 16` runs with embedded data and needs no download."


class DatasetNotFound(UserError, FileNotFoundError):
    """The images are not on this machine."""

    __str__ = Exception.__str__


def missing(card: DatasetCard, folder: Path) -> list[str]:
    """What of the card's entries `folder` lacks; the raw lists count only where the split file is absent."""
    lists = () if card.split and os.path.isfile(folder / card.split) else card.lists
    return [entry for entry in (*card.needs, *lists) if not os.path.exists(folder / entry)]


def misplaced(card: DatasetCard, folder: Path) -> str:
    """Why `folder` lacks things although the user has data, or ""; then nothing should be downloaded."""
    root, absent = folder.parent, not os.path.exists(folder)
    if absent and root.name == card.folder and not missing(card, root):
        return (f"{root} looks like the dataset's own folder, and --root (or DATA) is the folder above it: give "
                f"{root.parent}.")
    if absent and _is_surely(card, root):
        return (f"{root} looks like the dataset's own folder, and --root (or DATA) is the folder above it: name it "
                f"{card.folder}, or link it: ln -s {root} {root.parent / card.folder}, and give {root.parent}.")
    if absent and (other := next((place for place in _folders(root) if _is_surely(card, place)), None)):
        return f"{other} looks like it under another name: rename it {card.folder}, or link it: ln -s {other} {folder}."
    if inner := next((place for place in _folders(folder) if not missing(card, place)), None):
        return f"It is one level too deep, in {inner}: move what that folder holds up to {folder}."
    if card.name == "OxfordPets" and (named := _stanford_dogs(folder)):
        return (f"{named} has a WordNet name: this looks like Stanford Dogs. OxfordPets is the Oxford-IIIT Pet "
                "dataset, whose images are named by breed (Abyssinian_1.jpg).")
    if pair := next(((name, entry) for name in _names(folder) for entry in missing(card, folder)
                     if name != entry and name.lower() == entry.lower()), None):
        return f"{folder / pair[0]} is there, but letter case counts: rename it {pair[1]}."
    return ""


def _is_surely(card: DatasetCard, place: Path) -> bool:
    """Whether `place` holds what only this dataset has; many a folder holds "images"."""
    if any(place.name == other.folder for other in CARDS.values()):
        return False
    telling = (*card.needs, *card.lists) != ("images",) or os.path.isfile(place / card.split)
    return telling and not missing(card, place)


def _names(place: Path) -> list[str]:
    try:
        return sorted(os.listdir(place))
    except OSError:                             # absent or locked: nothing to tell about
        return []


def _folders(place: Path) -> list[Path]:
    return [place / name for name in _names(place) if os.path.isdir(place / name)]


def _stanford_dogs(folder: Path) -> Path | None:
    """A folder like Images/n02085620-Chihuahua, which Stanford Dogs has and Oxford-IIIT Pet has not."""
    return next((path for images in ("images", "Images") for path in _folders(folder / images)
                 if path.name.startswith("n0")), None)


def not_found(card: DatasetCard, folder: Path, lacking: list[str], reason: str = "") -> DatasetNotFound:
    """The paragraph for an absent or incomplete dataset.

    Args:
        reason: a sentence on why, e.g. that the download failed.
    """
    state = "is incomplete" if os.path.isdir(folder) else "was not found"
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
