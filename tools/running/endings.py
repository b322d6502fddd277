"""How a run ends that did not go well: the words, the exit codes, and what of its folder stays."""
from __future__ import annotations

import argparse
import contextlib
import errno
import os
import shutil
import sys
from pathlib import Path

from dassl.errors import UserError
from tools.running.configuration import setup_cfg
from tools.running.restart import SWEEP
from tools.runs import inputs
from tools.runs.folder import RunFolder

PROGRESS = "DASSL_PROGRESS_SECONDS"         # between lines of progress where stderr is no terminal
USER_ERROR, IN_USE = 2, 75                  # exit codes: a user error; another process writes in the run folder
_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
_FORBIDDEN = {errno.EROFS, errno.EACCES, errno.EPERM}
_NO_FOLDER = {errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL}
_AWAY = {errno.EIO, errno.ENOENT, getattr(errno, "ESTALE", errno.EIO), getattr(errno, "EHOSTDOWN", errno.EIO)}


def explain(error: Exception, args: argparse.Namespace) -> str:
    """A user error in words; "" for anything else, which deserves its traceback.

    Where the dataset is missing it also says whether OpenAI's weights are.
    """
    if not isinstance(error, UserError):
        return refused(error, args.output_dir or "output") if isinstance(error, OSError) else ""
    from clip.backbones import Backbone, resolve
    from clip.errors import InputError
    from clip.weights import cache_folders, find
    from datasets.benchmarks import DatasetNotFound

    if not isinstance(error, DatasetNotFound):
        return str(error)
    try:
        backbone = resolve(setup_cfg(args).MODEL.BACKBONE.NAME)
    except InputError:                              # a trainer of somebody else's, with a backbone of its own
        return str(error)
    if not isinstance(backbone, Backbone) or find(backbone):
        return str(error)
    return (f"{error}\n  weights: {backbone.name} is missing too; the first run fetches {backbone.url}, or place it at "
            f"{cache_folders()[0] / backbone.file}")


def refused(error: OSError, folder: str) -> str:
    """The message for a failed write in a run folder, or on a full disk; "" for anything else, which deserves its
    traceback.
    """
    path = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else ""
    outside = path and not (_within(path, folder) or _within(folder, path))
    if outside and error.errno not in _FULL:
        return ""
    reason = error.strerror or str(error)
    again = "run the same command again" + (": it resumes from what was saved" if RunFolder(folder).has_state else "")
    if error.errno in _FULL:
        return f"The disk of {path if outside else folder} is full ({reason}). Free some space and {again}."
    if error.errno in _FORBIDDEN and path:
        return f"{path} cannot be written ({reason}). Name another --output-dir, or have the rights there changed."
    if error.errno in _NO_FOLDER and path:
        return (f"{folder} cannot be a run folder ({reason}: {path}): a part of that path is not a folder, or no file "
                "system takes the name. Name another one with --output-dir.")
    if error.errno in _AWAY and path:
        return f"{path} is out of reach ({reason}). See whether its disk or network folder is there, and {again}."
    return ""


def _within(path: str, folder: str) -> bool:
    path, folder = os.path.abspath(path), os.path.abspath(folder)
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def interrupted(how: str, code: int, args: argparse.Namespace) -> int:
    """Say how a run ended and what to do, except to a sweep, which has words of its own; returns the code."""
    folder = args.output_dir
    if SWEEP not in os.environ:
        on = f" The same command resumes from what {folder} holds." if folder and RunFolder(folder).has_state else \
            f" Log: {folder}/log.txt" if folder and Path(folder, "log.txt").exists() else ""
        print(f"{how}.{on}", file=sys.stderr)
    return code


def first_new(folder: Path) -> Path | None:
    """The topmost part of the path that does not exist yet."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    return missing[-1] if missing else None


def remove_if_nothing_ran(folder: Path, first_new: Path | None) -> None:
    """Take back the folders of a run that ended before it had a result or a checkpoint, if it made them.

    Those above its own go only while they are empty: another run may have begun in them meanwhile.

    Args:
        first_new: the topmost folder that it made; None for none.
    """
    if first_new is None or not folder.exists():
        return
    if {path.name for path in folder.rglob("*") if path.is_file()} <= {"log.txt", "config.yaml", inputs.FILE}:
        shutil.rmtree(folder)
        with contextlib.suppress(OSError):                  # not empty: another run's
            for made in folder.parents[:len(folder.parts) - len(first_new.parts)]:
                made.rmdir()
