"""Fetch an archive with resume and unpack it, whole or not at all."""
from __future__ import annotations

import logging
import os
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

from tqdm import tqdm

from dassl.utils import UserError

logger = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 15


class DownloadError(UserError):
    """The file could not be fetched, or is not what it should be."""


def fetch(url: str, path: Path) -> Path:
    """Download `url` to `path`; what an earlier try left in `<path>.part` is continued.

    Raises:
        DownloadError: no network, a page instead of a file, a full disk, or DASSL_OFFLINE=1.
    """
    if os.environ.get("DASSL_OFFLINE") == "1":
        raise DownloadError("DASSL_OFFLINE=1 forbids downloads")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as reply:
            if "text/html" in reply.headers.get("Content-Type", ""):
                raise DownloadError(f"{url} gave a web page instead of a file; the address may have moved")
            have = have if reply.status == 206 else 0
            total = int(reply.headers.get("Content-Length") or 0) + have
            with open(part, "ab" if have else "wb") as file, tqdm(total=total or None, initial=have, unit="B",
                                                                  unit_scale=True, desc=path.name) as bar:
                while block := reply.read(1 << 18):
                    file.write(block)
                    bar.update(len(block))
    except (OSError, urllib.error.URLError) as error:
        if part.exists() and not part.stat().st_size:
            part.unlink()
        raise DownloadError(f"{url} could not be fetched ({error})") from error
    if total and part.stat().st_size < total:
        raise DownloadError(f"the connection closed after {part.stat().st_size:,} of {total:,} bytes of {url}; run again "
                            "to continue")
    part.replace(path)
    return path


def extract(archive: Path, folder: Path) -> None:
    """Unpack a zip or tar into `folder`, whose entries appear only when all of it is there.

    Raises:
        DownloadError: not an archive, damaged, or with a member that would leave the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unpacking-") as temporary:
        try:
            if zipfile.is_zipfile(archive):
                with zipfile.ZipFile(archive) as file:
                    for name in file.namelist():
                        if name.startswith(("/", "\\")) or ".." in Path(name).parts:
                            raise DownloadError(f"{archive} holds {name}, which would land outside of {folder}")
                    file.extractall(temporary)
            else:
                with tarfile.open(archive) as file:
                    file.extractall(temporary, filter="data")
        except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
            raise DownloadError(f"{archive} cannot be unpacked ({error}). Delete it and run again") from error
        except OSError as error:
            raise DownloadError(f"{archive} cannot be unpacked into {folder} ({error})") from error
        for entry in Path(temporary).iterdir():
            if not (folder / entry.name).exists():
                shutil.move(entry, folder / entry.name)


def get(urls: dict[str, str], folder: Path) -> None:
    """Fetch and unpack every archive into `folder`; each archive is deleted when its content is there."""
    for name, url in urls.items():
        logger.info("Fetching %s", url)
        archive = fetch(url, folder / name)
        extract(archive, folder)
        archive.unlink()
