"""A million images in one folder per class, listed only when somebody looks at them.

What a run with a kept few-shot list needs of them is remembered, keyed by the state of the folders.
"""
from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

from dassl.data.datasets import Datum
from dassl.utils import cache_dir, is_hidden, listdir_nohidden, read_json, write_json

logger = logging.getLogger(__name__)


class Listing(Sequence):
    """The images of a split with one folder per class; class k is the k-th folder by name.

    Args:
        images: folder of the class folders. names: {class folder: class name}.
        base: what paths in `digest` count from.
        other_order: gives the images in another order, and a value that changes with it; None lists the folders.
    Raises:
        KeyError: a class folder that `names` lacks. OSError: no such folder.
    """

    def __init__(self, images: Path, names: dict[str, str], base: Path,
                 other_order: tuple[Callable[[], list[Datum]], object] | None = None):
        self._base, self._other = base, other_order
        folders = sorted((entry for entry in os.scandir(images) if entry.is_dir() and not is_hidden(entry.name)),
                         key=lambda entry: entry.name)
        self.folders = [entry.path for entry in folders]
        self._names = [names[entry.name] for entry in folders]
        state = [str(images), other_order and other_order[1], self._names,
                 [(entry.name, entry.stat().st_mtime_ns) for entry in folders]]
        self._note = cache_dir() / "listed" / f"{hashlib.sha256(repr(state).encode()).hexdigest()[:32]}.json"

    @cached_property
    def _items(self) -> list[Datum]:
        if self._other:
            return self._other[0]()
        return [Datum(impath=f"{folder}{os.sep}{file}", label=label, classname=name)
                for label, (folder, name) in enumerate(zip(self.folders, self._names, strict=True))
                for file in listdir_nohidden(folder)]

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index):
        return self._items[index]

    def __iter__(self) -> Iterator[Datum]:
        return iter(self._items)

    def __bool__(self) -> bool:
        return bool(self.folders)

    @cached_property
    def samples(self) -> list[Datum]:
        """One Datum for each class, whose path is the class's folder."""
        return [Datum(impath=folder, label=label, classname=name)
                for label, (folder, name) in enumerate(zip(self.folders, self._facts["names"], strict=True))]

    def label_of(self, path: str) -> int | None:
        """The label of an image of this split; None for any other path."""
        label = self._labels.get(os.path.dirname(path))
        return label if label is not None and os.path.exists(path) else None

    @cached_property
    def _labels(self) -> dict[str, int]:
        return {folder: label for label, folder in enumerate(self.folders)}

    @property
    def counts(self) -> dict[int, int]:
        """{label: number of images}"""
        return dict(enumerate(self._facts["counts"]))

    @property
    def digest(self) -> str:
        """`rows_digest` of all images."""
        return self._facts["digest"]

    @cached_property
    def _facts(self) -> dict:
        """From the last run that saw the folders in this state, or from a new listing."""
        if self._note.is_file():
            return read_json(self._note)
        counts = Counter(item.label for item in self)
        names = dict(zip(range(len(self.folders)), self._names, strict=True))
        names |= {item.label: item.classname for item in self}
        facts = {"names": [names[label] for label in range(len(self.folders))],
                 "counts": [counts[label] for label in range(len(self.folders))],
                 "digest": rows_digest(self, self._base)}
        try:
            self._note.parent.mkdir(parents=True, exist_ok=True)
            write_json(facts, str(self._note))
        except OSError as error:
            logger.info("The listing is not remembered (%s)", error)
        return facts


def sampled(split: Sequence[Datum]) -> Sequence[Datum]:
    """Enough of a split to see its labels and class names."""
    return split.samples if isinstance(split, Listing) else split


def rows_digest(items: Sequence[Datum], folder: Path) -> str:
    """16 hex digits that change with the paths below `folder`, their order and their labels."""
    digest, comma = hashlib.sha256(b"["), ""
    for item in items:                              # piece by piece: a million rows at once take 500 MB
        digest.update(f"{comma}{[below(item.impath, folder), item.label]!r}".encode())
        comma = ", "
    digest.update(b"]")
    return digest.hexdigest()[:16]


def below(path: str, folder: Path) -> str:
    """`path` relative to `folder`."""
    prefix = f"{folder}{os.sep}"
    return path[len(prefix):] if path.startswith(prefix) else os.path.relpath(path, folder)
