"""Which split and which few-shot lists are the published ones, recognised by SHA-256.

Source: the SHA-256 of CoOp's split files is on the cards. The lists are CoOp's draws with seeds 1 to 3, as published by
cross_modal_adaptation (linzhiqiu, ac9077e, indices/) and 2SFS, with the same images in the same order.
"""
from __future__ import annotations

import hashlib
import json
import os
from functools import lru_cache
from pathlib import Path

from dassl.data.datasets import Datum
from dassl.utils import read_json
from dassl.utils.tools import json_text

from .cards import DatasetCard

PUBLISHED, OTHER = "published", "not the published one"
SPLITS = ("train", "val", "test")
_LISTS = Path(__file__).with_name("published_lists.json")   # {dataset: {shots: [SHA-256 for seed 1, 2, 3]}}


def split_rows(splits, images: Path) -> dict[str, list]:
    """CoOp's content of a split file: {split: [[path below `images`, label, class name]]}."""
    prefix = f"{images}{os.sep}"
    return {name: [[d.impath.removeprefix(prefix), d.label, d.classname] for d in items]
            for name, items in zip(SPLITS, splits, strict=True)}


def split_verdict(card: DatasetCard, rows: dict[str, list], path: Path | None) -> str | None:
    """Whether a split is the published one; None where no published one is known.

    Args:
        path: its file, which mostly tells at once; None where the split is kept nowhere.
    """
    known = [archive.sha256 for archive in card.published]
    if not any(known):
        return None
    if path and hashlib.sha256(path.read_bytes()).hexdigest() in known:
        return PUBLISHED
    return PUBLISHED if hashlib.sha256(json_text(rows).encode()).hexdigest() in known else OTHER


def list_verdict(card: DatasetCard, shots: int, seed: int, digest: str | None) -> str | None:
    """Whether a few-shot list with this `list_sha256` is the published one; None where none is known."""
    known = _published_lists().get(card.name, {}).get(str(shots), [])
    if digest is None or not 1 <= seed <= len(known):
        return None
    return PUBLISHED if digest == known[seed - 1] else OTHER


def list_sha256(drawn: dict[str, list[Datum]], folder: Path) -> str:
    """SHA-256 of {"train": [[path, label, class name]], "val": ...} in compact JSON, paths from `folder`'s name on."""
    start = len(str(folder.parent)) + 1
    rows = {split: [[d.impath[start:].replace(os.sep, "/"), d.label, d.classname] for d in items]
            for split, items in sorted(drawn.items())}
    return hashlib.sha256(json.dumps(rows, separators=(",", ":")).encode()).hexdigest()


@lru_cache(maxsize=1)
def _published_lists() -> dict[str, dict[str, list[str]]]:
    return read_json(_LISTS)
