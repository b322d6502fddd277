"""Fetch an archive with resume and unpack it, whole or not at all."""
from __future__ import annotations

import errno
import gzip
import hashlib
import http.client
import logging
import lzma
import os
import shutil
import stat
import sys
import tarfile
import tempfile
import threading
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from dassl.utils import UserError, cache_dir

from .cards import Archive
from .remote_zip import read_member

logger = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 15
_UNPACKING = ".unpacking-"                      # an archive's marker ends so; the folder for its content begins so
_CONTINUATIONS = 5
_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, lzma.LZMAError, zlib.error, EOFError,
            NotImplementedError, RuntimeError)        # an unknown compression, a password


class DownloadError(UserError):
    """The file could not be fetched, or is not what it should be."""


class NoRoom(DownloadError):
    """The disk is too small; another address would not help."""


def get(archives: Iterable[Archive], folder: Path) -> None:
    """Fetch and unpack into `folder` every archive that gives something it lacks, from the first address that serves.

    Each archive is deleted when its content is there. What an interrupted run left is continued.

    Raises:
        DownloadError: with the reason, for the middle of a paragraph.
    """
    for archive in archives:
        if _has(folder, archive):
            if _marker(folder, archive).exists():   # a run was killed before it removed what it had unpacked
                with _alone(folder):
                    _remove_half_unpacked(folder)
                    _remove(*_packed(folder, archive))
            continue
        if os.environ.get("DASSL_OFFLINE") == "1":
            raise DownloadError("DASSL_OFFLINE=1 forbids it")
        with _told(archive.url, folder), _alone(folder):
            if not _has(folder, archive):           # another run may have brought it meanwhile
                _get_one(archive, folder)


def _has(folder: Path, archive: Archive) -> bool:
    return all(os.path.exists(folder / entry) for entry in archive.gives)


@contextmanager
def _told(url: str, folder: Path) -> Iterator[None]:
    """Faults of network and disk as a DownloadError."""
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise NoRoom(f"the disk of {folder} is full; free some space and run again") from error
        why = error if isinstance(error, urllib.error.HTTPError) else getattr(error, "reason", None) or error
        raise DownloadError(f"{url} could not be fetched ({why})") from error


def _get_one(archive: Archive, folder: Path) -> None:
    """From the archive's address, else from its mirrors in order."""
    reasons, part = [], folder / f"{archive.file}.part"
    for number, url in enumerate((archive.url, *archive.mirrors)):
        if number and not archive.digest:
            part.unlink(missing_ok=True)            # nothing would tell if two servers' halves did not fit
        try:
            with _told(url, folder):
                _get_from(url, archive, folder)
            return
        except NoRoom:
            raise
        except DownloadError as error:
            reasons.append(str(error))
            logger.info("%s", error)
    raise DownloadError("; ".join(reasons))


def _get_from(url: str, archive: Archive, folder: Path) -> None:
    if archive.member:
        fetch_member(url, archive.member, folder / archive.file, archive.sha256)
        return
    path = fetch(url, folder / archive.file, archive.digest)
    if archive.plain:
        return
    _marker(folder, archive).touch()
    try:
        extract(path, folder, archive.inside, (archive.whole, archive.gives[0]) if archive.whole else None)
        if archive.then:
            extract(folder / archive.then, folder)
    except DownloadError:                           # a refused archive must not be met again
        _remove(*_packed(folder, archive))
        raise
    _remove(*_packed(folder, archive))


def _packed(folder: Path, archive: Archive) -> list[Path]:
    """What goes when the content is there; the marker, which says that it may go, is the last."""
    inner = [folder / archive.then] if archive.then else []
    return [folder / archive.file, *inner, _marker(folder, archive)]


def _marker(folder: Path, archive: Archive) -> Path:
    """A file next to an archive that is being unpacked."""
    return folder / f"{archive.file}{_UNPACKING}"


def _remove(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _alone(folder: Path):
    """Context that holds this user's lock on downloads to `folder`, after waiting for a run that holds it."""
    from filelock import FileLock, Timeout

    lock = cache_dir() / "locks" / f"{folder.name}-{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}"
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        return FileLock(lock).acquire(blocking=False)
    except Timeout:
        logger.warning("Waiting for another run that downloads to %s", folder)
        return FileLock(lock).acquire()


def fetch_member(url: str, member: str, path: Path, digest: str) -> None:
    """One file of a zip on a server, to `path`.

    Raises:
        DownloadError: not such a zip, or the member is another file.
        OSError: network or disk.
    """
    logger.info("Fetching %s of %s", member, url)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        part.write_bytes(read_member(url, member, _TIMEOUT_SECONDS))
    except (KeyError, ValueError, *_DAMAGED) as error:
        raise DownloadError(f"{url} is not a zip with {member} ({' '.join(str(error).split())})") from error
    _check_digest(part, digest, url)
    part.replace(path)


def fetch(url: str, path: Path, digest: str = "") -> Path:
    """Download `url` to `path`; a connection that closes early is taken up again, also by a later run.

    Until it is whole the file is `<path>.part`.

    Args:
        digest: MD5 or SHA-256 in hex that the file must have; "" checks nothing.
    Raises:
        DownloadError: a page instead of a file, a connection that keeps closing, a wrong checksum, too small a disk, an
            address without encryption for a file without checksum.
        OSError: network or disk.
    """
    if not digest and not _is_safe(url):
        raise DownloadError(f"{url} is not https, and no checksum of the file is known: what comes from there could be "
                            "anybody's. Fetch it by hand if you trust it")
    if path.is_file() and _fits(path, digest):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    for left in reversed(range(_CONTINUATIONS + 1)):
        have = _size(part)
        if _fetch_rest(url, part, have):
            break
        if not left or _size(part) <= have:
            raise DownloadError(f"the connection to {url} closed after {_size(part):,} bytes; run again to continue")
    _check_digest(part, digest, url)
    part.replace(path)
    return path


def _is_safe(url: str) -> bool:
    parts = urllib.parse.urlsplit(url)
    return parts.scheme == "https" or parts.hostname in ("127.0.0.1", "::1", "localhost")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _fetch_rest(url: str, part: Path, have: int) -> bool:
    """Ask for what follows byte `have`; whether `part` is now whole."""
    logger.info("Fetching %s%s", url, f", from byte {have:,}" if have else "")
    try:
        reply = _open(url, have)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != 416:                   # 416: nothing is left of the range, so the part is all of it or wrong
            raise
        if error.headers.get("Content-Range") != f"bytes */{have}":
            part.unlink()
            raise DownloadError(f"{part} did not fit {url} and was deleted; run again to start afresh") from error
        return True
    with reply:
        return _receive(reply, url, part, have)


def _open(url: str, have: int):
    """The server's reply within the time limit, slow name servers included; asked a second time if there is none."""
    try:
        return _ask(url, have)
    except urllib.error.HTTPError:
        raise
    except (OSError, http.client.HTTPException) as error:
        logger.info("Asking %s once more (%s)", url, error)
        return _ask(url, have)


def _ask(url: str, have: int):
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    answer: list = []

    def ask() -> None:
        try:
            answer.append(urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS))
        except Exception as error:  # noqa: BLE001 - raised again by the caller's thread
            answer.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_TIMEOUT_SECONDS + 2)
    if not answer:
        raise TimeoutError(f"no answer within {_TIMEOUT_SECONDS + 2} seconds")
    if isinstance(answer[0], Exception):
        raise answer[0]
    return answer[0]


def _receive(reply, url: str, part: Path, have: int) -> bool:
    """Append the reply to `part`, which holds `have` bytes, or start afresh if the server sends the whole file.

    Returns:
        Whether all that was announced has come.
    """
    have = have if reply.status == 206 else 0
    rest = int(reply.headers.get("Content-Length") or 0)
    first = _read(reply)
    if "text/html" in reply.headers.get("Content-Type", "") or (not have and first.lstrip()[:1] == b"<"):
        raise DownloadError(f"{url} gave a web page instead of a file; the address may have moved, or the network asks "
                            "for a login")
    free = shutil.disk_usage(part.parent).free
    if rest > free:
        raise NoRoom(f"{url} needs {rest / 1e6:,.0f} MB more, and the disk of {part.parent} has only "
                            f"{free / 1e6:,.0f} MB free; make room and run again")
    received, block = 0, first
    # A log file gets a line every half minute, a terminal a moving bar.
    pace = 0.1 if sys.stderr.isatty() else 30
    with open(part, "ab" if have else "wb") as file, tqdm(total=rest + have or None, initial=have, unit="B",
                                                          unit_scale=True, desc=part.stem, mininterval=pace) as bar:
        while block:
            file.write(block)
            received += len(block)
            bar.update(len(block))
            block = _read(reply)
    return received >= rest


def _read(reply) -> bytes:
    """Some more bytes; none at the end, be it the file's or a broken connection's."""
    try:
        return reply.read(1 << 18)
    except http.client.IncompleteRead as error:
        return error.partial
    except OSError as error:
        logger.info("The connection broke (%s)", error)
        return b""


def _check_digest(part: Path, digest: str, url: str) -> None:
    if not _fits(part, digest):
        part.unlink()
        raise DownloadError(f"what {url} gave is damaged or another file: its {_algorithm(digest)} is not {digest}, so "
                            "it was deleted; run again to fetch it once more")


def _algorithm(digest: str) -> str:
    return "MD5" if len(digest) == 32 else "SHA-256"


def _fits(path: Path, digest: str) -> bool:
    if not digest:
        return True
    found = hashlib.new(_algorithm(digest).replace("-", ""), usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest() == digest


def _remove_half_unpacked(folder: Path) -> None:
    """What killed runs left; a user's own runs unpack one after the other."""
    for left in folder.glob(f"{_UNPACKING}*"):
        if not hasattr(os, "getuid") or left.stat().st_uid == os.getuid():
            shutil.rmtree(left)


def extract(archive: Path, folder: Path, inside: str = "", whole: tuple[str, str] | None = None) -> None:
    """Unpack a zip or tar into `folder`, whose entries appear only when all of it could be read.

    Args:
        inside: the folder in the archive whose entries are wanted; "" for all.
        whole: a folder in `inside` that alone is wanted, and the name that it gets.
    Raises:
        DownloadError: not an archive, damaged (it is deleted), or with a member that would leave the folder.
    """
    if not hasattr(tarfile, "data_filter"):
        raise DownloadError("this Python cannot unpack archives safely; take its newest patch release")
    _remove_half_unpacked(folder)
    with tempfile.TemporaryDirectory(dir=folder, prefix=_UNPACKING) as temporary:
        try:
            if zipfile.is_zipfile(archive):
                with zipfile.ZipFile(archive) as file:
                    for member in file.infolist():
                        _refuse_zip_member(member, archive)
                    file.extractall(temporary)
            else:
                with tarfile.open(archive) as file:
                    file.extractall(temporary, filter=_tar_filter)
        except tarfile.FilterError as error:
            raise _refusal(error.tarinfo.name, archive) from error
        except _DAMAGED as error:
            archive.unlink()
            raise DownloadError(f"{archive} was no readable archive ({' '.join(str(error).split())}) and was deleted; "
                                "run again") from error
        source = Path(temporary, inside, whole[0] if whole else "")
        if not source.is_dir():
            raise DownloadError(f"{archive} holds no folder {source.relative_to(temporary)}")
        for entry, name in [(source, whole[1])] if whole else [(entry, entry.name) for entry in source.iterdir()]:
            if not (folder / name).exists():
                entry.replace(folder / name)


def _tar_filter(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo | None:
    """Python's filter for data, which alone would strip the root of an absolute name instead of refusing it."""
    if member.name.startswith(("/", "\\")):
        raise tarfile.AbsolutePathError(member)
    return tarfile.data_filter(member, folder)


def _refuse_zip_member(member: zipfile.ZipInfo, archive: Path) -> None:
    name = member.filename.replace("\\", "/")
    if name.startswith("/") or ".." in name.split("/") or stat.S_ISLNK(member.external_attr >> 16):
        raise _refusal(member.filename, archive)


def _refusal(name: str, archive: Path) -> DownloadError:
    return DownloadError(f"{archive} holds {name!r}, which is a link or would land outside of its folder, so nothing "
                         "of it was unpacked")
