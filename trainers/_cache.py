"""A tensor kept on disk under everything that determines it, in the user's cache folder."""
from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from dassl.utils import cache_dir

logger = logging.getLogger(__name__)


def cached_tensor(kind: str, key: dict, compute: Callable[[], Tensor]) -> Tensor:
    """`compute()`, or what it gave before for the same `key`.

    Args:
        kind: sub-folder of the cache, e.g. "prototypes".
        key: every input that changes the value, JSON-serialisable.
        compute: called when nothing valid is stored; a damaged file counts as nothing.
    """
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
    path = Path(cache_dir()) / kind / f"{name}.pt"
    if path.is_file():
        try:
            stored = torch.load(path, map_location="cpu", weights_only=True)
            logger.info("Read %s from %s", kind, path)
            return stored
        except Exception as error:  # whatever is wrong with a cache file, computing again is right
            logger.warning("Computing %s again: %s is damaged (%s)", kind, path, type(error).__name__)
    value = compute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            torch.save(value.cpu(), file)
        os.replace(file.name, path)
    except OSError as error:
        logger.info("Did not keep %s in %s (%s)", kind, path.parent, error)
    return value


def file_facts(paths: list[str]) -> list[tuple[str, int, int]]:
    """(absolute path, bytes, modification time in ns) of each file: what says that an image is still the same."""
    return [(os.path.abspath(p), s.st_size, s.st_mtime_ns) for p in paths for s in [os.stat(p)]]
