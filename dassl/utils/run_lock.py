"""One process writes in a run folder at a time: it holds `run.lock`, and `run.lock.txt` next to it says who it is.

The system ends the lock with its process, on folders that machines share too, where their file system has locks.
"""
from __future__ import annotations

import contextlib
import getpass
import os
import shlex
import socket
import sys
import time
from pathlib import Path

from filelock import FileLock, Timeout

from dassl.files.whole import write_whole

from .errors import UserError

FILE, OWNER = "run.lock", "run.lock.txt"
PATIENCE = 0.5                      # seconds: whoever asks for the owner holds the lock for a moment


class FolderInUse(UserError):
    """Another process writes in this run folder."""


def owner_of(folder: str | Path) -> str:
    """The live process that writes in this run folder, in words; "" where there is none."""
    path = Path(folder, FILE)
    if not path.exists():
        return ""
    try:
        with FileLock(path, timeout=0):
            if not Path(folder, OWNER).exists():        # released just now, so that the lock is a new file
                path.unlink(missing_ok=True)
            return ""
    except (Timeout, PermissionError):                  # who may only read this folder cannot try the lock
        return read_owner(folder)


def read_owner(folder: str | Path) -> str:
    """The process that a folder names, be it alive or not."""
    try:
        return Path(folder, OWNER).read_text(encoding="utf-8", errors="replace").strip() or "an unknown process"
    except OSError:
        return "an unknown process"


class RunLock:
    """Holds a run folder from `__enter__` to `__exit__`, whichever way that is left. Makes the folder if need be.

    Attributes:
        taken_over_from: the owner that died in this folder, or "".
    Raises:
        FolderInUse: from `__enter__`; names the owner and the way out.
        OSError: the folder cannot be made or written.
    """

    def __init__(self, folder: str | Path):
        self.folder, self.taken_over_from = Path(folder), ""
        self._lock, self._pid = FileLock(self.folder / FILE, timeout=PATIENCE), os.getpid()

    def __enter__(self) -> RunLock:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout:
            raise FolderInUse(
                f"{self.folder} is in use by {read_owner(self.folder)}; two runs in one folder would overwrite each "
                "other. Wait for it or stop it there (kill and its number), or name another --output-dir.") from None
        if (self.folder / OWNER).exists():
            self.taken_over_from = read_owner(self.folder)
        try:
            write_whole(self.folder / OWNER, f"{_this_process()}\n".encode(errors="backslashreplace"))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        if os.getpid() == self._pid:                    # not a fork of the owner
            with contextlib.suppress(OSError):          # the folder may be gone
                (self.folder / OWNER).unlink(missing_ok=True)
                (self.folder / FILE).unlink(missing_ok=True)
            self._lock.release()


def _this_process() -> str:
    """"process 4711 of ann on node3, since 2026-11-30 12:00:00 (`python train.py`)"."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):                         # a number without a name, as in containers
        user = f"user {os.getuid()}"
    command = shlex.join([os.path.basename(sys.executable), *sys.argv])[:1000]
    return (f"process {os.getpid()} of {user} on {socket.gethostname()}, since {time.strftime('%Y-%m-%d %H:%M:%S')} "
            f"(`{' '.join(command.split())}`)")
