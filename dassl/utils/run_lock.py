"""One process writes in a run folder at a time: `run.lock` in it names the owner.

Works on folders that machines share: the lock appears by a hard link (or exclusive creation), which network file
systems carry out whole, and its owner touches it every few seconds. An owner on this machine is alive if its process
is; one elsewhere, if its heartbeat goes on. Ages are differences of two times of the file system, never of our clock,
and an old heartbeat is watched for a while before it counts as stopped, so that a clock that jumps kills no lock.
"""
from __future__ import annotations

import contextlib
import getpass
import json
import logging
import os
import shlex
import socket
import sys
import threading
import time
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path

from . import stop
from .errors import UserError

FILE = "run.lock"
HEARTBEAT_SECONDS = 10.0
STALE_SECONDS = 60.0                # a heartbeat of another machine that is older than this is watched, and
WATCH_SECONDS = 25.0                # if it stands still for so long, the lock is taken over

logger = logging.getLogger(__name__)


class FolderInUse(UserError):
    """Another process writes in this run folder."""


@dataclass(frozen=True)
class Owner:
    """The process that holds a lock.

    Attributes:
        place: boot and process namespace in which `pid` has a meaning; "" where the system does not tell.
        born: when the process began, in the kernel's ticks; "" where the system does not tell.
        started: local time at which it took the lock, for people only.
        token: of this one lock, never used again.
    """

    host: str
    pid: int
    user: str
    command: str
    started: str
    place: str = ""
    born: str = ""
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    @classmethod
    def this_process(cls) -> Owner:
        command = shlex.join([os.path.basename(sys.executable), *sys.argv])
        return cls(socket.gethostname(), os.getpid(), _user(), command[:1000],
                   time.strftime("%Y-%m-%d %H:%M:%S"), _place(), _born(os.getpid()) or "")

    def __str__(self) -> str:
        return f"process {self.pid} of {self.user} on {self.host}, since {self.started} (`{self.command}`)"


def owner_of(folder: str | Path) -> Owner | None:
    """The live process that writes in this run folder; None where there is none.

    Returns at once, except for a lock of another machine whose heartbeat is old: that is watched (WATCH_SECONDS).
    """
    path = Path(folder, FILE)
    owner = _read(path)
    return owner if owner is not None and _alive(owner, path) else None


class RunLock:
    """Holds a run folder from `__enter__` to `__exit__`, whichever way that is left. Makes the folder if need be.

    Attributes:
        owner: this process. taken_over_from: the dead owner whose lock was found, or None.
        lost: whether another process has taken the folder over, which happens to one that slept for minutes.
    Raises:
        FolderInUse: from `__enter__`; names the owner and the way out.
        OSError: the folder cannot be made or written.
    """

    def __init__(self, folder: str | Path):
        self.folder, self.owner = Path(folder), Owner.this_process()
        self.path = self.folder / FILE
        self.taken_over_from: Owner | None = None
        self.lost = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="run lock", daemon=True)

    def __enter__(self) -> RunLock:
        self.folder.mkdir(parents=True, exist_ok=True)
        while not self._create():
            found = _read(self.path)
            if found is None:                           # released just now
                continue
            if _alive(found, self.path):
                raise FolderInUse(
                    f"{self.folder} is in use by {found}; two runs in one folder would overwrite each other. Wait "
                    f"for it or stop it (kill {found.pid}, on {found.host}), or name another --output-dir.")
            self._replace(found)
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        if os.getpid() != self.owner.pid:               # a fork of the owner
            return
        self._stop.set()
        self._thread.join()
        stop.abandon("")                                # a later run in this process writes elsewhere
        with contextlib.suppress(OSError):              # the folder may be gone
            if _token(self.path) == self.owner.token:
                self.path.unlink()

    def _create(self) -> bool:
        """Whether the lock was free and is ours now."""
        mine = self._write_beside()
        try:
            os.link(mine, self.path)
            return True
        except FileExistsError:
            return False
        except OSError:                                 # a file system without hard links
            with contextlib.suppress(FileExistsError), open(self.path, "x", encoding="utf-8") as file:
                file.write(mine.read_text(encoding="utf-8"))
                return True
            return False
        finally:
            mine.unlink()

    def _replace(self, dead: Owner) -> None:
        """Free the lock of a dead owner, unless somebody else has done so; only one process may at a time."""
        permit = self.path.with_name(f"{FILE}-{dead.token}")
        try:
            permit.open("x").close()
        except FileExistsError:
            with contextlib.suppress(FileNotFoundError):
                if _age(permit) > STALE_SECONDS:        # whoever was about to do it died within a moment
                    permit.unlink(missing_ok=True)
            time.sleep(0.05)
            return
        try:
            if _token(self.path) == dead.token:
                self.path.unlink()
                self.taken_over_from = dead
        finally:
            permit.unlink(missing_ok=True)

    def _write_beside(self) -> Path:
        path = self.path.with_name(f"{FILE}-{self.owner.token}")
        path.write_text(json.dumps(asdict(self.owner), indent=2) + "\n", encoding="utf-8")
        return path

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            with contextlib.suppress(OSError):          # a server that is away for a moment; the next beat may reach it
                token = _token(self.path)
                if token is None and self.folder.is_dir():      # the folder was removed and made anew
                    token = self.owner.token if self._create() else _token(self.path)
                if token not in (None, self.owner.token):
                    self.lost = True
                    stop.abandon(f"{self.folder} is in use by {_read(self.path)}, which took it over while this "
                                 "process slept or the folder was away. This one ends without writing there.")
                    return
                if token:
                    os.utime(self.path)


def _read(path: Path) -> Owner | None:
    """The owner that a lock names; one without a name for a lock that is just being written or is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Owner(**content)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        return Owner("an unknown machine", 0, "an unknown user", "unknown", "an unknown time", token="unreadable")


def _token(path: Path) -> str | None:
    owner = _read(path)
    return owner and owner.token


def _alive(owner: Owner, path: Path) -> bool:
    if (owner.host, owner.place) == (socket.gethostname(), _place()):
        if owner.place:
            return _born(owner.pid) == owner.born
        if _gone(owner.pid):
            return False
    try:
        with contextlib.suppress(PermissionError):      # who may only read this folder has but the watching
            if abs(_age(path)) <= STALE_SECONDS:
                return True
        before, end = path.stat().st_mtime_ns, time.monotonic() + WATCH_SECONDS
        logger.warning("%s has an old lock of %s; watching for %.0f seconds whether it still beats", path.parent, owner,
                       WATCH_SECONDS)
        while time.monotonic() < end:
            time.sleep(min(0.5, WATCH_SECONDS / 10))
            path.read_bytes()                           # opening a file has a network folder ask its server anew
            if path.stat().st_mtime_ns != before:
                return True
    except FileNotFoundError:                           # released meanwhile
        pass
    return False


def _age(path: Path) -> float:
    """Seconds since a file was touched, by the clock of its file system."""
    probe = path.with_name(f"{FILE}-{uuid.uuid4().hex}")
    try:
        probe.touch()
        return probe.stat().st_mtime - path.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _born(pid: int) -> str | None:
    """When a living process of this machine began, in ticks since the start; None for none, or where unknown."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    state, *fields = stat.rpartition(")")[2].split()
    return None if state in "ZX" else fields[18]        # field 22 of proc(5); a zombie writes nothing any more


def _gone(pid: int) -> bool:
    """Whether no process has this number, where there is no /proc; False on Windows, where asking would end it."""
    if os.name != "posix":
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False


def _place() -> str:
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):                         # a number without a name, as in containers
        return f"user {os.getuid()}"
