"""Trees of images as people have them: which folders are splits and classes, and which are not theirs at all."""
from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dassl.names import listed
from dassl.utils import UserError, is_hidden

logger = logging.getLogger(__name__)

SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
           "test": "test", "testing": "test"}
LAYOUT = ("A folder with one folder of images per class is expected, or train/, val/ and test/ that hold these, or a "
          "CSV or JSON file with path, label and classname.")


class Row(NamedTuple):
    """An image: its absolute path, the class it belongs to (by which classes are sorted), that class's name, and its
    split, "" where it has none."""

    path: str
    key: int | str
    name: str
    split: str


def as_text(name: str) -> str:
    """A folder's name as UTF-8 spells it, whatever the locale; bytes that are not UTF-8 stay surrogates."""
    try:
        return os.fsencode(name).decode()
    except UnicodeError:
        return name


def read_tree(folder: Path, test_only: bool = False) -> Iterator[Row]:
    """The images of a folder; `test_only`: nothing is learned from them, so train/ may be missing."""
    tops: dict[str, Path] = {}
    for place in _folders(folder):
        if (split := SPLITS.get(place.name.lower())) and tops.setdefault(split, place) != place:
            raise UserError(f"{folder} has {tops[split].name} and {place.name}: which of them is {split}? Rename one.")
    if tops and "train" not in tops and not test_only:
        raise UserError(f"{folder} has {' and '.join(tops)} but no train: there is nothing to learn from. {LAYOUT} "
                        "To test a trained run on it, add --eval-only --model-dir RUN.")
    others = [place.name for place in _folders(folder) if tops and place not in tops.values()]
    if others and "train" in tops and not _holds_images(tops["train"]):
        raise UserError(f"{tops['train']} holds no images, and next to it are {listed(others)}. If these are classes, "
                        f"remove {tops['train'].name}, or move them into it. {LAYOUT}")
    if others:
        logger.warning("Ignored next to train, val and test: %s", ", ".join(others))
    layout = [(split, top, _folders(top)) for split, top in tops.items() or [("", folder)]]
    names = {place.name for *_, places in layout for place in places}
    numbered = all(map(str.isdecimal, names)) and len(set(map(int, names))) == len(names)    # 2 comes before 10
    skipped, hidden, homes = Counter(), Counter(), {}
    for split, top, places in layout:
        if loose := next((entry.name for entry in top.iterdir()
                          if entry.suffix.lower() in SUFFIXES and not is_hidden(entry.name)), None):
            raise UserError(f"{loose} lies in {top} itself, not in the folder of a class: its label is unknown. "
                            f"{LAYOUT}")
        hidden.update(entry.name for entry in top.iterdir() if is_hidden(entry.name) and _holds_images(entry))
        for place in places:
            home = place.resolve()
            if (before := homes.setdefault(home, place)) != place:
                raise UserError(f"{place} and {before} are one folder, {home}: an image has one class and one split. "
                                "Remove one of the links.")
            files = _files(place, hidden)
            images = [path for path in files if path.suffix.lower() in SUFFIXES]
            skipped.update(path.suffix for path in files if path.suffix.lower() not in SUFFIXES)
            if not images:
                logger.warning("%s holds no images and is left out", place)
            _warn_of_folders_within(place, images)
            key = int(place.name) if numbered else as_text(place.name)
            yield from (Row(str(path), key, as_text(place.name), split) for path in images)
    if skipped:
        logger.warning("Left out because their endings are none of those read as images: %s",
                       ", ".join(f"{count} {suffix or 'without ending'}" for suffix, count in skipped.items()))
    if hidden:
        logger.warning("Left out because they are hidden: %s. Rename a folder that is a class.",
                       ", ".join(f"{name} ({count})" if count > 1 else name for name, count in hidden.items()))


def _folders(place: Path) -> list[Path]:
    return sorted(entry for entry in place.iterdir() if entry.is_dir() and not is_hidden(entry.name))


def _holds_images(place: Path) -> bool:
    return place.is_dir() and any(Path(name).suffix.lower() in SUFFIXES for _, _, names in os.walk(place)
                                  for name in names)


def _files(place: Path, hidden: Counter[str]) -> list[Path]:
    """Below `place`, at any depth, sorted; hidden files and folders are left out, the folders counted in `hidden`."""
    found = []
    for top, folders, names in os.walk(place):
        hidden.update(name for name in folders if is_hidden(name) and _holds_images(Path(top, name)))
        folders[:] = [name for name in folders if not is_hidden(name)]
        if links := [name for name in folders if os.path.islink(os.path.join(top, name))]:
            logger.warning("Links to folders are followed for whole classes only; left out in %s: %s", top,
                           ", ".join(links[:5]))
        found += [Path(top, name) for name in names if not is_hidden(name)]
    return sorted(found)


def _warn_of_folders_within(place: Path, images: list[Path]) -> None:
    """A class whose images all lie in several folders of their own may be several classes to its owner."""
    within = {path.relative_to(place).parts[0] for path in images if path.parent != place}
    if len(within) > 1 and all(path.parent != place for path in images):
        logger.warning("The %d folders in %s (%s) are one class, %s. If they are classes, move them up, or name the "
                       "images in a CSV", len(within), place, ", ".join(sorted(within)[:5]), place.name)
