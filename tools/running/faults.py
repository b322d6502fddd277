"""What the file system refuses a run, and what to do. Imports nothing heavy."""
from __future__ import annotations

import errno
import os

from tools.runs.folder import RunFolder

_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
_FORBIDDEN = {errno.EROFS, errno.EACCES, errno.EPERM}
_NO_FOLDER = {errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL}
_AWAY = {errno.EIO, errno.ENOENT, getattr(errno, "ESTALE", errno.EIO), getattr(errno, "EHOSTDOWN", errno.EIO)}


def explain(error: OSError, folder: str) -> str:
    """The message for a failed write in a run folder; "" for anything else, which deserves its traceback."""
    path = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else ""
    if path and not (_within(path, folder) or _within(folder, path)):
        return ""
    reason = error.strerror or str(error)
    again = "run the same command again" + (": it resumes from what was saved" if RunFolder(folder).has_state else "")
    if error.errno in _FULL:
        return f"The disk of {folder} is full ({reason}). Free some space and {again}."
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
