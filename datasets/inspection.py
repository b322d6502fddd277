"""A dataset's folder looked at from outside in: what should be there, what is, and whether the parts fit together."""
from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from dassl.data.datasets import Datum
from dassl.utils import UserError, read_image

from . import readers
from .benchmarks import draw_split, read_split
from .cards import DatasetCard
from .check import check_files, check_labels, check_names, misplaced, missing, not_found
from .kept_lists import cache_of
from .published import split_rows, split_verdict

_DECODED = 20
_LISTED = 12


@dataclass
class Report:
    """What was seen.

    Attributes:
        facts: (what, finding) in the order of the look. problems: a paragraph each; empty where all is well.
    """

    facts: list[tuple[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def state_of(card: DatasetCard, folder: Path) -> str:
    """In a few words whether the dataset is there."""
    if not os.path.isdir(folder):
        return "absent"
    lacking = missing(card, folder)
    if lacking:
        return f"incomplete: no {', '.join(lacking)}"
    if card.split and not any((place / card.split).is_file() for place in (folder, cache_of(folder))):
        return "present; its split is drawn at first use"
    return "present"


def inspect_card(card: DatasetCard, folder: Path) -> Report:
    """Look at the folder of a benchmark; nothing is fetched, drawn to disk or changed."""
    report, splits = Report([("folder", str(folder)), ("expected", _expected(card)), ("found", found(folder))]), None
    with _told_in(report):
        if lacking := missing(card, folder):
            raise not_found(card, folder, lacking, misplaced(card, folder))
        kept = [place / card.split for place in (folder, cache_of(folder)) if card.split]
        path = next(filter(Path.is_file, kept), None)
        splits = read_split(card, folder, path) if path else draw_split(card, folder)
        report.facts.append(("split", f"{path}" if path else
                             "drawn at first use, by CoOp's rules" if card.split else "the dataset's own"))
        if card.split and (verdict := split_verdict(card, split_rows(splits, folder / card.images), path)):
            report.facts.append(("that is", verdict))
        check_labels(card, splits)
        check_names(card, folder, splits)
    if splits is None:
        return report
    _count(card, splits, report)
    with _told_in(report):
        check_files(card, folder, splits)
        report.facts.append(("files of the split", f"all {sum(len(s or ()) for s in splits):,} there"))
        _decode([d for s in splits if s for d in s], report)
    return report


def inspect_dataset(dataset, folder: Path) -> Report:
    """Look at a dataset that has no card: the embedded ones, your own images, a plugin's."""
    report, splits = Report([("folder", str(folder)), ("found", found(folder))]), _splits_of(dataset)
    report.facts.append(("classes", f"{dataset.num_classes:,}"))
    report.facts += [(f"{name} images", f"{len(items):,}") for name, items in splits.items()]
    everything = [d for items in splits.values() for d in items]
    with _told_in(report):
        if absent := [d.impath for d in everything if not os.path.exists(d.impath)]:
            raise UserError(f"{len(absent):,} of {len(everything):,} images are missing, first "
                            f"{', '.join(absent[:5])}.")
        report.facts.append(("files of the splits", f"all {len(everything):,} there"))
        _decode(everything, report)
    return report


def found(folder: Path) -> str:
    """One line of what lies in a folder, with how much is in its folders."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        return f"nothing ({error.strerror})"
    words = [f"{e.name}/ ({len(os.listdir(e.path)):,})" if e.is_dir() else e.name for e in entries[:_LISTED]]
    return ", ".join(words) + (f" and {len(entries) - _LISTED:,} more" if len(entries) > _LISTED else "") or "nothing"


def _splits_of(dataset) -> dict[str, Sequence[Datum]]:
    splits = {name: getattr(dataset, split) for name, split in (("train", "train_x"), ("val", "val"), ("test", "test"))}
    return {name: items for name, items in splits.items() if items}


def _expected(card: DatasetCard) -> str:
    lists = f"; without {card.split} also {', '.join(card.lists)}" if card.split and card.lists else ""
    return ", ".join((*card.needs, *((card.split,) if card.split else ()))) + lists


@contextmanager
def _told_in(report: Report) -> Iterator[None]:
    """What is wrong goes into the report; what cannot be seen after it is left out."""
    try:
        yield
    except UserError as error:
        report.problems.append(str(error))


def _count(card: DatasetCard, splits: readers.Splits, report: Report) -> None:
    """Compare sizes with the card, and show three labels with their names and files."""
    wanted = {"test": card.test} if card.test_only else {"train": card.train, "val": card.val, "test": card.test}
    sizes = {name: len(s or ()) for name, s in zip(("train", "val", "test"), splits, strict=True) if name in wanted}
    by_label = {d.label: d for d in reversed(splits[2])}
    report.facts.append(("classes", f"{len(by_label):,}, as on the card" if len(by_label) == card.classes else
                         f"{len(by_label):,}; the card has {card.classes:,}"))
    report.facts += [(f"{name} images", f"{size:,}" + (", as on the card" if size == wanted[name] else
                                                       f"; the card has {wanted[name]:,}" if wanted[name] else ""))
                     for name, size in sizes.items() if size or wanted[name]]
    report.facts += [(f"label {label}", f"{d.classname!r}, e.g. {d.impath}")
                     for label, d in sorted(by_label.items())[:3]]
    wrong = [f"{size:,} {name} images instead of {wanted[name]:,}" for name, size in sizes.items()
             if wanted[name] and size != wanted[name]]
    wrong += [f"{len(by_label):,} classes instead of {card.classes:,}"] * (len(by_label) != card.classes)
    if wrong:
        report.problems.append(f"{card.name} has {', '.join(wrong)}: it was not unpacked whole, or it is another "
                               f"version. Do not compare accuracies on it with others. Get it again from {card.home}.")


def _decode(items: list[Datum], report: Report) -> None:
    """Read a sample, spread evenly. Raises UserError for the first image that cannot be read."""
    step = max(1, len(items) // _DECODED)
    sizes = [read_image(d.impath).size for d in items[::step][:_DECODED]]
    widths, heights = zip(*sizes, strict=True)
    report.facts.append(("decoded", f"{len(sizes)} images, {min(widths)} to {max(widths)} pixels wide and "
                                    f"{min(heights)} to {max(heights)} high"))
