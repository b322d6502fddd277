"""A tensor kept on disk under everything that determines it, in the user's cache folder."""
from __future__ import annotations

import hashlib
import io
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from dassl.files.whole import write_whole
from dassl.utils import cache_dir, distributed

logger = logging.getLogger(__name__)


def cached_tensor(kind: str, key: dict, compute: Callable[[], Tensor]) -> Tensor:
    """`compute()`, or what it gave before for the same `key`.

    Args:
        kind: sub-folder of the cache, e.g. "prototypes".
        key: every input that changes the value, JSON-serialisable.
        compute: called when nothing valid is stored; a damaged file counts as nothing. Of several processes the first
            one's cache counts, and all compute together or none does.
    """
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
    if key.get("weights") == "random":          # others each time
        return compute()
    path = Path(cache_dir()) / kind / f"{name}.pt"
    stored = distributed.from_first(_read(kind, path) if distributed.rank() == 0 else None)
    if stored is not None:
        return stored
    value = compute()
    if distributed.rank() == 0:
        _write(kind, path, value)
    return value


def _read(kind: str, path: Path) -> Tensor | None:
    if not path.is_file():
        return None
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever is wrong with a cache file, computing again is right
        logger.warning("Computing %s again: %s is damaged (%s)", kind, path, type(error).__name__)
        return None
    logger.info("Read %s from %s", kind, path)
    return stored


def _write(kind: str, path: Path, value: Tensor) -> None:
    content = io.BytesIO()
    torch.save(value.cpu(), content)
    try:
        write_whole(path, content.getvalue())
    except OSError as error:
        logger.info("Did not keep %s in %s (%s)", kind, path.parent, error)


def file_facts(paths: list[str]) -> list[tuple[str, int, int]]:
    """(absolute path, bytes, modification time in ns) of each file: what says that an image is still the same."""
    return [(os.path.abspath(p), s.st_size, s.st_mtime_ns) for p in paths for s in [os.stat(p)]]
