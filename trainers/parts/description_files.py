"""Where files of descriptions are: on this machine, or in the authors' repositories, from where they are fetched once.

Every published file is known by its SHA-256: descriptions.sha256, line ends aside.

Source: caichengyi/DecoupledVP 4976ad4, causes/ and attributes/, and tmlr-group/AttrVR ef63be6 (caichengyi/AttrVR
d10af49), attributes/gpt3/, which alone has dist files and ImageNet's.
"""
from __future__ import annotations

import hashlib
import http.client
import json
import logging
import os
import re
import urllib.error
from functools import lru_cache
from pathlib import Path

from clip import InputError, weights

logger = logging.getLogger(__name__)

KINDS = re.compile(r"des|dist|cse_[1-9]\d*")
FOLDERS = ("", "descriptions", "attributes", "attributes/gpt3", "causes")    # below the root and each folder in it

_DVP = "https://raw.githubusercontent.com/caichengyi/DecoupledVP/4976ad43ed567bc27c3e714731c0ca7c290d586b"
# Where the attribute files were made: the same texts, should DVP's copy of one be missing.
_ATTRVR = "https://raw.githubusercontent.com/caichengyi/AttrVR/d10af49bf4727235d426e536854c6192b9bf8f8c/attributes/gpt3"
_ATTRVR_NOW = "https://raw.githubusercontent.com/tmlr-group/AttrVR/HEAD/attributes/gpt3"
_AUTHORS_STEM = {"imagenet": "I"}
_ATTEMPTS = 3
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
        _verify(kept, is_published(kind, stem))
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
    theirs = f"{_authors_name(kind, stem)}.json"
    urls = [f"{_DVP}/causes/{theirs}"] if kind.startswith("cse") else \
        [f"{place}/{theirs}" for place in (f"{_DVP}/attributes", _ATTRVR, _ATTRVR_NOW)]
    target, reason = cache_folder() / f"{name}.json", "Downloading is off."
    if not (pinned := is_published(kind, stem)):
        urls, reason = [], "The authors have published no such file."
    for url in urls if download else ():
        try:
            return _fetch(url, target, pinned)
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
    return list(dict.fromkeys((f"{stem}_{kind}.json", f"{_authors_name(kind, stem)}.json"))) if stem else []


def _in_folder(folder: Path, names: list[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _folders(root: Path) -> list[Path]:
    try:
        inner = sorted(entry for entry in root.iterdir() if entry.is_dir())
    except OSError:
        inner = []
    return [folder / sub for folder in (root, *inner) for sub in FOLDERS]


def _authors_name(kind: str, stem: str) -> str:
    """What the authors call a file: ImageNet is I, and causes from 4 on are spelled csl."""
    theirs = kind if kind in ("cse_1", "cse_2", "cse_3") else kind.replace("cse", "csl")
    return f"{_AUTHORS_STEM.get(stem, stem)}_{theirs}"


def is_published(kind: str, stem: str) -> str | None:
    """SHA-256 of the authors' file, or None if they have none."""
    return _known().get(f"{_authors_name(kind, stem)}.json")


@lru_cache(maxsize=1)
def _known() -> dict[str, str]:
    rows = (line.split() for line in Path(__file__).with_name("descriptions.sha256").read_text().splitlines())
    return {name: digest for digest, name in rows}


def _fetch(url: str, target: Path, pinned: str) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.stem}.{os.getpid()}.part")
    try:
        _download(url, part)
        content = part.read_bytes()
        _parse(content)
        digest = _digest(content)
        if digest != pinned:
            raise ValueError(f"what came has sha256 {digest}, and the authors' file has {pinned}")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    logger.info("Fetched %s to %s, sha256 %s", url, target, digest[:8])
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


def _verify(kept: Path, pinned: str | None) -> None:
    if pinned and (got := _digest(kept.read_bytes())) != pinned:
        raise InputError(f"{kept} has sha256 {got}, the authors' file {pinned}: it was changed since it was fetched. "
                         "Delete it to have it fetched again, or move it to your datasets' folder descriptions to use "
                         "it as it is.")


def _digest(content: bytes) -> str:
    # Git may rewrite line ends, which mean nothing in these files.
    return hashlib.sha256(content.replace(b"\r\n", b"\n")).hexdigest()


def _parse(content: bytes) -> dict[str, list[str]]:
    """Raises ValueError with the reason."""
    if content.lstrip()[:1] == b"<":
        raise ValueError("it is a web page")
    try:
        found = json.loads(content.decode("utf-8-sig"))
    except RecursionError as error:
        raise ValueError(str(error)) from error
    if not isinstance(found, dict) or not found:
        raise ValueError(f"it holds {type(found).__name__}, not classes")
    for name, sentences in found.items():
        if not isinstance(sentences, list) or not all(isinstance(s, str) for s in sentences):
            raise ValueError(f"the value of {name!r} is not a list of sentences")
    return found
