"""What can be wrong with a dataset's folder, and how to fix it."""
from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from tqdm import tqdm

from dassl.data.datasets import Datum
from dassl.utils import UserError

from .cards import CARDS, DatasetCard
from .kept_lists import cache_of

MEANWHILE = "`bash scripts/dapt.sh digits 16` runs with embedded data and needs no download"


class DatasetNotFound(UserError, FileNotFoundError):
    """The images are not on this machine."""

    __str__ = Exception.__str__


def missing(card: DatasetCard, folder: Path) -> list[str]:
    """What of the card's entries `folder` lacks; the raw lists count only where the split file is absent."""
    kept = card.split and any((place / card.split).is_file() for place in (folder, cache_of(folder)))
    lists = () if kept else card.lists
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
    if card.name == "ImageNet" and (loose := _loose_images(folder / "images" / "val")):
        return (f"{folder / 'images' / 'val'} holds images such as {loose} and no class folders: sort them with "
                "https://raw.githubusercontent.com/soumith/imagenetloader.torch/master/valprep.sh (run it in val/).")
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


def _loose_images(place: Path) -> str:
    """An image that lies in `place` itself where only class folders should be, or ""."""
    names = _names(place)[:1000]
    return next((name for name in names if name.endswith(".JPEG")), "")


def not_found(card: DatasetCard, folder: Path, lacking: list[str], reason: str = "") -> DatasetNotFound:
    """What is absent or incomplete, and how to get it, one item a line.

    Args:
        reason: a sentence on why, e.g. that the download failed.
    """
    state = f"{'is incomplete' if os.path.isdir(folder) else 'was not found'}: looked in {folder} for"
    tree = ", ".join(f"{card.folder}/{entry}" for entry in (*card.needs, *card.lists))
    urls = " and ".join(archive.url for archive in card.archives)
    urls = f"{urls} ({card.home})" if urls else card.home
    items = {"why": reason,
             "get": f"{urls}; unpack it so that {folder.parent} holds {tree}. {card.by_hand}".rstrip(" ."),
             "split": f"{card.published[0].url}, placed in {card.folder}/ as {card.split}" if card.split else "",
             "elsewhere": f"name the folder that holds {card.folder}/ with DATA=... or --root",
             "meanwhile": MEANWHILE}
    return DatasetNotFound("\n".join([f"{card.name} {state} {', '.join(lacking)}.",
                                      *(f"  {name}: {text}" for name, text in items.items() if text)]))


def check_files(card: DatasetCard, folder: Path, splits) -> None:
    """Raises DatasetNotFound if images of the split are not on disk, with the first five and their number."""
    files = [d.impath for s in splits if s for d in s]
    looked = tqdm(files, f"{card.name}: looking for every image", delay=2, leave=False, file=sys.stderr,
                  disable=not sys.stderr.isatty())
    absent = [path for path in looked if not os.path.exists(path)]
    if absent:
        why = misplaced(card, folder) or _spelt_otherwise(Path(absent[0]))
        raise DatasetNotFound(
            f"{card.name}: {len(absent):,} of {len(files):,} images of the split are missing, first "
            f"{', '.join(absent[:5])}.\n  fix: {why or f'unpack the whole dataset again, from {card.home}'}\n"
            f"  meanwhile: {MEANWHILE}")


def _spelt_otherwise(path: Path) -> str:
    """That a missing file or its folder is there under a name that differs in case, signs or ending, or ""."""
    while not path.parent.exists():
        path = path.parent
    for same in (lambda name: plain(name) == plain(path.name), lambda name: Path(name).stem == path.stem):
        if other := next(filter(same, _names(path.parent)), None):
            return (f"{other} is there instead of {path.name}, in {path.parent}: this is another copy of the dataset, "
                    "or names were changed. Rename them, or unpack the dataset again.")
    return ""


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


def check_names(card: DatasetCard, folder: Path, splits) -> None:
    """Raises UserError if images stand under the name of another class, as their folder or file names tell.

    Only where file names are class names at all, and only for a folder that is wholly under another class's name.
    """
    own = {plain(name): name for name in {d.classname for s in splits if s for d in s}}
    own |= {plain(raw): name for raw, name in card.rename.items() if plain(name) in own}
    hinted: dict[str, dict[str, str]] = {}
    for item in (d for s in splits if s for d in s):
        hinted.setdefault(_hint(item.impath, folder / card.images), {}).setdefault(item.classname, item.impath)
    for hint, found in hinted.items():
        if hint in own and own[hint] not in found:
            name, path = next(iter(found.items()))
            raise UserError(f"{card.name}: class names and images disagree: {path} is called {name!r}, and its name "
                            f"says {own[hint]!r}. The order of the classes in {card.split or 'the lists'} is another "
                            f"one: fetch it again ({card.home}).")


def plain(name: str) -> str:
    """A class name without what files spell otherwise: case, spaces and signs."""
    return "".join(c for c in name.lower() if c.isalnum())


def _hint(path: str, images: Path) -> str:
    """What an image's folder, or its file name without the number, calls it."""
    parent = os.path.dirname(path)
    name = os.path.basename(parent) if parent != str(images) else re.sub(r"[_-]?\d+\.\w+$", "", os.path.basename(path))
    return plain(name)
