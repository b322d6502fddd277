"""One process writes in a run folder at a time: it holds `run.lock`, and `run.lock.json` beside it says who it is.

The system ends the lock with its process, on folders that machines share too, where their file system has locks.
"""
from __future__ import annotations

import contextlib
import getpass
import json
import os
import shlex
import socket
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from .errors import UserError
from .whole_files import write_whole

FILE, OWNER = "run.lock", "run.lock.json"
PATIENCE = 0.5                      # seconds: whoever asks for the owner holds the lock for a moment

UNKNOWN = ("an unknown machine", 0, "an unknown user", "unknown", "an unknown time")


class FolderInUse(UserError):
    """Another process writes in this run folder."""


@dataclass(frozen=True)
class Owner:
    """The process that holds a lock; `started` is the local time at which it took it."""

    host: str
    pid: int
    user: str
    command: str
    started: str

    @classmethod
    def this_process(cls) -> Owner:
        command = shlex.join([os.path.basename(sys.executable), *sys.argv])
        return cls(socket.gethostname(), os.getpid(), _user(), command[:1000], time.strftime("%Y-%m-%d %H:%M:%S"))

    def __str__(self) -> str:
        return f"process {self.pid} of {self.user} on {self.host}, since {self.started} (`{self.command}`)"


def owner_of(folder: str | Path) -> Owner | None:
    """The live process that writes in this run folder; None where there is none."""
    path = Path(folder, FILE)
    if not path.exists():
        return None
    try:
        with FileLock(path, timeout=0):
            if not Path(folder, OWNER).exists():        # released just now, so that the lock is a new file
                path.unlink(missing_ok=True)
            return None
    except (Timeout, PermissionError):                  # who may only read this folder cannot try the lock
        return _read(folder)


class RunLock:
    """Holds a run folder from `__enter__` to `__exit__`, whichever way that is left. Makes the folder if need be.

    Attributes:
        taken_over_from: the owner that died in this folder, or None.
    Raises:
        FolderInUse: from `__enter__`; names the owner and the way out.
        OSError: the folder cannot be made or written.
    """

    def __init__(self, folder: str | Path):
        self.folder, self.taken_over_from = Path(folder), None
        self._lock, self._pid = FileLock(self.folder / FILE, timeout=PATIENCE), os.getpid()

    def __enter__(self) -> RunLock:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout:
            found = _read(self.folder)
            raise FolderInUse(
                f"{self.folder} is in use by {found}; two runs in one folder would overwrite each other. Wait for it "
                f"or stop it (kill {found.pid}, on {found.host}), or name another --output-dir.") from None
        if (self.folder / OWNER).exists():
            self.taken_over_from = _read(self.folder)
        try:
            write_whole(self.folder / OWNER, json.dumps(asdict(Owner.this_process()), indent=2) + "\n")
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


def _read(folder: str | Path) -> Owner:
    """The owner that a folder names; an unknown one where the file is being written or damaged."""
    try:
        return Owner(**json.loads(Path(folder, OWNER).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return Owner(*UNKNOWN)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):                         # a number without a name, as in containers
        return f"user {os.getuid()}"
