"""A relative file that somebody's code asks for is looked for in its repository too, after the current folder."""
from __future__ import annotations

import builtins
import contextlib
import io
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import torch

from . import repository

logger = logging.getLogger(__name__)

_OURS = ("dassl.", "tools.", "trainers.", "datasets.", "clip.")
_READERS = ("dassl.utils.", "dassl.compat.")                # ours that read for whoever calls them


@contextlib.contextmanager
def files_of_repositories(made: Callable[[Path], bytes | None]) -> Iterator[None]:
    """Inside, reading with `open`, os.path.exists and isfile, and torch.jit.load know the repositories of plugins.

    Nothing changes for our own code, for files that exist, and for writing.

    Args:
        made: the content of a missing file that exists in another format; None for any other.
    """
    real_open, real_load = builtins.open, torch.jit.load

    def open(file, mode="r", *args, **kwargs):
        try:
            return real_open(file, mode, *args, **kwargs)
        except FileNotFoundError:
            if set(mode) & set("wax+") or (root := _asked_by()) is None:
                raise
            if (there := _in(root, file)) is not None:
                logger.info("Reading %s of the plugin's repository", there)
                return real_open(there, mode, *args, **kwargs)
            if "b" in mode and (content := made(Path(file))) is not None:
                return io.BytesIO(content)
            raise

    def or_there(exists):
        def ask(path):
            return exists(path) or isinstance(path, (str, os.PathLike)) and (root := _asked_by()) is not None \
                and (_in(root, path) is not None or made(Path(path)) is not None)

        return ask

    def load(f, *args, **kwargs):
        root = _asked_by()
        return real_load((root and _in(root, f)) or f, *args, **kwargs)

    with mock.patch.object(builtins, "open", open), mock.patch.object(io, "open", open), \
            mock.patch.object(os.path, "exists", or_there(os.path.exists)), \
            mock.patch.object(os.path, "isfile", or_there(os.path.isfile)), mock.patch.object(torch.jit, "load", load):
        yield


def _asked_by() -> Path | None:
    """The repository of the code that asks; None where it is ours. Libraries and readers ask for their callers."""
    frame = sys._getframe(2)
    while frame is not None:
        name = f"{frame.f_globals.get('__name__', '')}."
        if (root := repository.root_of(name)) is not None or name.startswith(_OURS) and not name.startswith(_READERS):
            return root
        frame = frame.f_back
    return None


def _in(root: Path, path) -> str | None:
    """The file in the repository, for a relative path that is not there from the current folder."""
    if not isinstance(path, (str, os.PathLike)) or os.path.isabs(path) or os.path.lexists(path):
        return None
    there = os.path.join(root, path)
    return there if os.path.isfile(there) else None
