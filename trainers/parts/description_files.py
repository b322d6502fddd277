"""Where files of descriptions are: on this machine, or in the authors' repositories, from where they are fetched once.

Source: caichengyi/DecoupledVP 4976ad4, causes/ and attributes/, and caichengyi/AttrVR d10af49, attributes/gpt3/.
"""
from __future__ import annotations

import hashlib
import http.client
import json
import logging
import os
import re
import urllib.error
from pathlib import Path

from clip import InputError, weights

logger = logging.getLogger(__name__)

KINDS = re.compile(r"des|dist|cse_[1-9]\d*")
FOLDERS = ("", "descriptions", "attributes", "causes")      # below the root and below each folder in it
STEMS = ("caltech101", "dtd", "eurosat", "fgvc", "food101", "oxford_flowers", "oxford_pets", "resisc45",
         "stanford_cars", "sun397", "ucf101")               # what the authors have files for

_DVP = "https://raw.githubusercontent.com/caichengyi/DecoupledVP/4976ad43ed567bc27c3e714731c0ca7c290d586b"
# Where the attribute files were made: the same texts, should DVP's copy of one be missing.
_ATTRVR = "https://raw.githubusercontent.com/caichengyi/AttrVR/d10af49bf4727235d426e536854c6192b9bf8f8c/attributes/gpt3"
_ATTEMPTS = 3
# Of the authors' files, line ends aside.
_SHA256 = {
    "eurosat_cse_1": "cdde22876a8d3fac26d0c136a424682980e652104bb324bf32e56b906073e0f0",
    "eurosat_cse_2": "5178600fee20da4cc8071621b7f7b569b0fdb6e33c4e020ce741f814e88c14bd",
    "eurosat_cse_3": "964c7a5b506ddf2f4934a77d97c505f4093e3e58b5af9d011392007f6afc1ac8",
    "eurosat_des": "7e66eb08678b99115f8d7cfc545a8cbd895bc96ff0657fcd1bd91a9687c5d2da",
    "eurosat_dist": "cd2be2ccc03e7da901775e72147d03dff5fcc29978a5ea7dbe5a8715ce7e2a28",
    "oxford_pets_cse_1": "a26051279f4fab3d03c575583615cb58cf6db111167110944bca1e13c309f1ec",
    "oxford_pets_cse_2": "e84f077e005beff89cbc3c9d5098d9373eaea0f8d0c6fdec3ef92803e485883c",
    "oxford_pets_cse_3": "ee2bfe7ab94aef2a742b79ea819afc1b48145f17a10ff5b8959e7a128537cc36",
    "oxford_pets_des": "74f478b5dd52d507e5a2a3bc8de50f75aa27f09b63abf2d823aac78d25f9bbf6",
    "oxford_pets_dist": "1d82ac8be64a11f6d06e3305c18faa97b708394557186868e97f0e13c37a89af",
}


def find_file(kind: str, *, stem: str = "", root: str = "", path: str = "") -> Path | None:
    """The file on this machine, or None.

    Raises:
        InputError: `path` is given and has no such file; a file in the cache is not what was downloaded.
    """
    if path:
        return _given(kind, stem, Path(path).expanduser())
    if not stem:
        return None
    for folder in _folders(Path(root).expanduser()) if root else ():
        if found := _in_folder(folder, _names(kind, stem)):
            return found
    kept = cache_folder() / f"{stem}_{kind}.json"
    if kept.is_file():
        _verify(kept)
        return kept
    return None


def cache_folder() -> Path:
    """Where downloads are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "dassl" / "descriptions"


def fetch_file(kind: str, stem: str, root: str = "", download: bool = True) -> Path:
    """The authors' file, fetched into the cache, whole or not at all.

    A part is of this process alone, so that runs which start together do not meet in one; a cut connection is taken
    up again within the run.

    Raises:
        InputError: the authors have no such file, it cannot be had, or what came is not it.
    """
    name = f"{stem}_{kind}"
    if not stem:
        raise InputError(f"This dataset brings no descriptions {kind}, and has no descriptions_stem by which files "
                         "are found. Name a folder of them with TRAINER.<NAME>.DESCRIPTIONS; python "
                         "tools/describe.py make writes them.")
    urls = [f"{_DVP}/causes/{stem}_{_authors_kind(kind)}.json"] if kind.startswith("cse") else \
        [f"{_DVP}/attributes/{name}.json", f"{_ATTRVR}/{name}.json"]
    target, reason = cache_folder() / f"{name}.json", "Downloading is off."
    if stem not in STEMS:
        urls, reason = [], "No address of the authors' is known for this dataset."
    for url in urls if download else ():
        try:
            return _fetch(url, target)
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = f"Downloading them failed ({url}: {error})."
            if not isinstance(error, urllib.error.HTTPError):
                break
    looked = [f"{Path(root).expanduser()} and its folders"] * bool(root) + [str(target)]
    raise InputError(f"The descriptions {name} are not on this machine: no {name}.json in {', no '.join(looked)}. "
                     f"{reason} Place the file in {Path(root or '.').expanduser() / 'descriptions'}, name another "
                     "folder with TRAINER.<NAME>.DESCRIPTIONS, or have the sentences written: python "
                     "tools/describe.py make --help tells how.")


def read_descriptions(path: Path) -> dict[str, list[str]]:
    """{class: [sentences]} of a file.

    Raises:
        InputError: it is unreadable or something else.
    """
    try:
        return _parse(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise InputError(f"{path} is not a file of descriptions, which is JSON: {{class: [sentences]}} ({error}). "
                         "`python tools/describe.py check` tells more of such a file.") from error


def _given(kind: str, stem: str, path: Path) -> Path:
    if path.is_file():
        other = re.search(rf"(?:^|_)({KINDS.pattern})$", path.stem)
        if other and other[1] != kind:
            raise InputError(f"{path} holds {other[1]} by its name, and {kind} is needed too: name the folder that "
                             f"holds all kinds, {stem or '<dataset>'}_{other[1]}.json and ..._{kind}.json.")
        return path
    names = [*_names(kind, stem), f"{kind}.json"]
    found = next(filter(None, (_in_folder(path / sub, names) for sub in FOLDERS)), None)
    if not found:
        raise InputError(f"There are no descriptions {kind} in {path}: looked for {' and '.join(names)} there and in "
                         f"its folders {', '.join(FOLDERS[1:])}. Name a file, or a folder that has them.")
    return found


def _names(kind: str, stem: str) -> list[str]:
    return list(dict.fromkeys(f"{stem}_{k}.json" for k in (kind, _authors_kind(kind)))) if stem else []


def _in_folder(folder: Path, names: list[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _folders(root: Path) -> list[Path]:
    try:
        inner = sorted(entry for entry in root.iterdir() if entry.is_dir())
    except OSError:
        inner = []
    return [folder / sub for folder in (root, *inner) for sub in FOLDERS]


def _authors_kind(kind: str) -> str:
    """The authors' name of a kind: their causes from 4 on are spelled csl."""
    return kind.replace("cse", "csl") if kind not in ("cse_1", "cse_2", "cse_3") else kind


def _fetch(url: str, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.stem}.{os.getpid()}.part")
    try:
        _download(url, part)
        content = part.read_bytes()
        _parse(content)
        digest, pinned = _digest(content), _SHA256.get(target.stem)
        if pinned and digest != pinned:
            raise ValueError(f"what came has sha256 {digest}, and the authors' file has {pinned}")
        target.with_suffix(".sha256").write_text(digest + "\n")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    logger.info("Fetched %s to %s, sha256 %s%s", url, target, digest[:8],
                "" if pinned else ", not known before and written down beside it")
    return target


def _download(url: str, part: Path) -> None:
    for left in reversed(range(_ATTEMPTS)):
        try:
            weights.download(url, part)
            return
        except urllib.error.HTTPError:
            raise
        except (OSError, http.client.HTTPException):
            if not left or not part.exists():       # nothing has come: no connection, and none in a second
                raise


def _verify(kept: Path) -> None:
    note = kept.with_suffix(".sha256")
    expected = _SHA256.get(kept.stem) or (note.read_text().strip() if note.is_file() else None)
    if expected and (got := _digest(kept.read_bytes())) != expected:
        raise InputError(f"{kept} has sha256 {got}, and {expected} was downloaded: it was changed since. Delete it to "
                         "have it fetched again, or move it to your datasets' folder descriptions to use it as it is.")


def _digest(content: bytes) -> str:
    # Git may rewrite line ends, which mean nothing in these files.
    return hashlib.sha256(content.replace(b"\r\n", b"\n")).hexdigest()


def _parse(content: bytes) -> dict[str, list[str]]:
    """Raises ValueError with the reason."""
    if content.lstrip()[:1] == b"<":
        raise ValueError("it is a web page")
    found = json.loads(content.decode("utf-8-sig"))
    if not isinstance(found, dict) or not found:
        raise ValueError(f"it holds {type(found).__name__}, not classes")
    for name, sentences in found.items():
        if not isinstance(sentences, list) or not all(isinstance(s, str) for s in sentences):
            raise ValueError(f"what stands for {name!r} is no list of sentences")
    return found
