"""Fetch an archive with resume and unpack it, whole or not at all."""
from __future__ import annotations

import errno
import gzip
import hashlib
import http.client
import logging
import lzma
import os
import tarfile
import tempfile
import threading
import urllib.error
import urllib.request
import zipfile
import zlib
from pathlib import Path

from tqdm import tqdm

from dassl.utils import UserError

from .cards import Archive

logger = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 15
_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, lzma.LZMAError, zlib.error, EOFError)


class DownloadError(UserError):
    """The file could not be fetched, or is not what it should be."""


def get(archives: tuple[Archive, ...], folder: Path) -> None:
    """Fetch and unpack into `folder` every archive that gives something it lacks.

    Each archive is deleted when its content is there. What an interrupted run left is continued.

    Raises:
        DownloadError: with the reason, for the middle of a paragraph.
    """
    for archive in archives:
        if all((folder / entry).exists() for entry in archive.gives):
            continue
        if os.environ.get("DASSL_OFFLINE") == "1":
            raise DownloadError("DASSL_OFFLINE=1 forbids it")
        try:
            path = fetch(archive.url, folder / archive.url.rsplit("/", 1)[1], archive.md5)
            extract(path, folder, archive.inside)
            path.unlink()
        except (OSError, http.client.HTTPException) as error:
            if getattr(error, "errno", None) == errno.ENOSPC:
                raise DownloadError(f"the disk of {folder} is full; free some space and run again") from error
            raise DownloadError(f"{archive.url} could not be fetched to {folder} ({error})") from error


def fetch(url: str, path: Path, md5: str = "") -> Path:
    """Download `url` to `path`; what an earlier try left in `<path>.part` is continued.

    Args:
        md5: hex digest that the file must have; "" checks nothing.
    Raises:
        DownloadError: a page instead of a file, a closed connection, a wrong checksum. OSError: network or disk.
    """
    if path.is_file() and _md5_fits(path, md5):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    have = part.stat().st_size if part.exists() else 0
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
    else:
        with reply:
            _receive(reply, url, part, have)
    if not _md5_fits(part, md5):
        part.unlink()
        raise DownloadError(f"what {url} gave is damaged or another file: its MD5 is not {md5}, so it was deleted; run "
                            "again to fetch it once more")
    part.replace(path)
    return path


def _open(url: str, have: int):
    """The server's reply within the time limit, slow name servers included."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    answer: list = []

    def ask() -> None:
        try:
            answer.append(urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS))
        except Exception as error:  # noqa: BLE001 - raised again by the caller's thread
            answer.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_TIMEOUT_SECONDS + 5)
    if not answer:
        raise TimeoutError(f"no answer within {_TIMEOUT_SECONDS + 5} seconds")
    if isinstance(answer[0], Exception):
        raise answer[0]
    return answer[0]


def _receive(reply, url: str, part: Path, have: int) -> None:
    """Append the reply to `part`, which holds `have` bytes; start afresh if the server sends the whole file."""
    have = have if reply.status == 206 else 0
    total = int(reply.headers.get("Content-Length") or 0) + have
    received = have
    first = reply.read(1 << 18)
    if "text/html" in reply.headers.get("Content-Type", "") or (not have and first.lstrip()[:1] == b"<"):
        raise DownloadError(f"{url} gave a web page instead of a file; the address may have moved, or the network asks "
                            "for a login")
    with open(part, "ab" if have else "wb") as file, tqdm(total=total or None, initial=have, unit="B", unit_scale=True,
                                                          desc=part.stem) as bar:
        block = first
        while block:
            file.write(block)
            received += len(block)
            bar.update(len(block))
            block = reply.read(1 << 18)
    if total and received < total:
        raise DownloadError(f"the connection to {url} closed after {received:,} of {total:,} bytes; run again to "
                            "continue")


def _md5_fits(path: Path, md5: str) -> bool:
    if not md5:
        return True
    digest = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest() == md5


def extract(archive: Path, folder: Path, inside: str = "") -> None:
    """Unpack a zip or tar into `folder`, whose entries appear only when all of it could be read.

    Args:
        inside: the folder in the archive whose entries are wanted; "" for all.
    Raises:
        DownloadError: not an archive, damaged (it is deleted), or with a member that would leave the folder.
    """
    if not hasattr(tarfile, "data_filter"):
        raise DownloadError("this Python cannot unpack archives safely; take its newest patch release")
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unpacking-") as temporary:
        try:
            if zipfile.is_zipfile(archive):
                with zipfile.ZipFile(archive) as file:
                    _refuse([name for name in file.namelist()
                             if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/")], archive)
                    file.extractall(temporary)
            else:
                with tarfile.open(archive) as file:
                    file.extractall(temporary, filter="data")
        except tarfile.FilterError as error:
            _refuse([error.tarinfo.name], archive)
        except _DAMAGED as error:
            archive.unlink()
            raise DownloadError(f"{archive} was no readable archive ({error}) and was deleted; run again") from error
        source = Path(temporary, inside)
        if not source.is_dir():
            raise DownloadError(f"{archive} holds no folder {inside}")
        for entry in source.iterdir():
            if not (folder / entry.name).exists():
                entry.replace(folder / entry.name)


def _refuse(names: list[str], archive: Path) -> None:
    if names:
        raise DownloadError(f"{archive} holds {names[0]!r}, which would land outside of its folder, so nothing of it "
                            "was unpacked")
