"""What must be true of a dataset before the first step: labels and names agree, every image is there and readable."""
from __future__ import annotations

import hashlib
import logging
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tqdm import tqdm

from dassl.utils.errors import UserError
from dassl.utils.tools import cache_dir, why_unreadable

logger = logging.getLogger(__name__)

_DECODE_ALL_BELOW = 20_000      # larger splits: the files must exist, their content is read in training


def check_dataset(dataset, name: str, why: Callable[[str], str] | None = why_unreadable) -> None:
    """Raises UserError for labels without names, missing files and unreadable images, naming the first few.

    Args:
        why: says why a path cannot be read, "" if it can. None only looks whether some files are missing: another
            dataset_wrapper may read what is not an image, and where no path is a file, names of something else.
    """
    check_labels(dataset, name)
    splits = {s: getattr(dataset, s) for s in ("train_x", "train_u", "val", "test") if getattr(dataset, s, None)}
    files = {item.impath: split for split, items in splits.items() for item in items}
    missing = [path for path in files if not os.path.exists(path)]
    if missing and (why or len(missing) < len(files)):
        raise UserError(f"{name}: {len(missing)} of {len(files)} images are missing, first {', '.join(missing[:5])}. "
                        "Check DATASET.ROOT and that the dataset was unpacked completely.")
    if len(files) > _DECODE_ALL_BELOW:
        files = {path: split for path, split in files.items() if split == "train_x"}
    if why is None or len(files) > _DECODE_ALL_BELOW:
        return
    facts = sorted((os.path.abspath(path), (stat := os.stat(path)).st_size, stat.st_mtime_ns) for path in files)
    stamp = cache_dir() / "checked" / hashlib.sha256(repr(facts).encode()).hexdigest()[:32]
    if stamp.exists():
        return
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        reasons = tqdm(pool.map(why, files), f"{name}: reading every image once", len(files), delay=2,
                       leave=False, file=sys.stderr, disable=not sys.stderr.isatty(), dynamic_ncols=True)
        broken = [path for path, reason in zip(files, reasons, strict=True) if reason]
    if broken:
        raise UserError(f"{name}: {len(broken)} of {len(files)} images cannot be read, first "
                        f"{', '.join(f'{p} ({why(p)}, split {files[p]})' for p in broken[:5])}. "
                        "Fetch or copy them again.")
    try:
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.touch()
    except OSError as error:
        logger.info("The image check is not remembered (%s)", error)


def check_labels(dataset, name: str) -> None:
    """Labels are 0 to C-1, each with one class name, and no split has a label or name of its own."""
    classnames, C = dataset.classnames, dataset.num_classes
    if len(classnames) != C:
        absent = sorted(set(range(C)) - set(dataset.lab2cname))
        raise UserError(f"{name}: the largest label is {C - 1}, so there are {C} classes, but only {len(classnames)} "
                        f"have training images and names; labels {absent[:5]} have none. Number the classes 0 to "
                        f"{len(classnames) - 1}, or add their images.")
    for split in ("val", "test"):
        items = getattr(dataset, split, None) or []
        if _is_relabelled_part(items, dataset.lab2cname):
            logger.warning("%s: the %s split has %d of the %d training classes under labels of its own, from 0. Its "
                           "accuracy means something only for a trainer that compares with these classes alone", name,
                           split, len({item.label for item in items}), C)
            continue
        for item in items:
            if item.label not in dataset.lab2cname:
                raise UserError(f"{name}: {item.impath} in the {split} split has label {item.label}, which no training "
                                f"image has (labels are 0 to {C - 1}). Labels and class names disagree: "
                                "check the split.")
            if item.classname and item.classname != dataset.lab2cname[item.label]:
                raise UserError(f"{name}: label {item.label} is {dataset.lab2cname[item.label]!r} in training and "
                                f"{item.classname!r} in the {split} split ({item.impath}). Labels and class names "
                                "disagree: check the order of the classes in the split.")


def _is_relabelled_part(items, lab2cname: dict[int, str]) -> bool:
    """Whether a split has some of the training classes, renumbered from 0 (as base-to-new tests of public code)."""
    own = {item.label: item.classname for item in items}
    return (all(own[item.label] == item.classname for item in items) and set(own) == set(range(len(own)))
            and len(own) < len(lab2cname) and set(own.values()) <= set(lab2cname.values())
            and len(set(own.values())) == len(own) and any(lab2cname.get(i) != name for i, name in own.items()))
