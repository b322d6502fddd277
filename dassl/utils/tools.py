"""Files, images and small checks, under Dassl's names."""
from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from PIL import Image

from .environment import collect_env_info
from .errors import UserError, WrongValue, nearest, suggestion
from .seeding import set_random_seed

logger = logging.getLogger(__name__)

__all__ = ["BadImage", "atomic_write", "cache_dir", "check_availability", "check_isfile", "collect_env_info",
           "get_most_similar_str_to_a_from_b", "listdir_nohidden", "mkdir_if_missing", "read_image", "read_json",
           "set_random_seed", "tolist_if_not", "write_json"]


class BadImage(UserError, OSError):
    """An image file that is missing or cannot be decoded."""


def cache_dir() -> Path:
    """The user's cache folder of this project; not made here."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dassl"


def mkdir_if_missing(dirname: str | Path) -> None:
    os.makedirs(dirname, exist_ok=True)


def check_isfile(fpath: str | Path) -> bool:
    """Whether `fpath` is a file; warns where it is not."""
    found = os.path.isfile(fpath)
    if not found:
        logger.warning("No file found at %s", fpath)
    return found


def listdir_nohidden(path: str | Path, sort: bool = False) -> list[str]:
    """Names in a folder without those that start with a dot; always sorted, so lists do not depend on the file system."""
    return sorted(name for name in os.listdir(path) if not name.startswith("."))


@contextlib.contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator[IO]:
    """Opens a file that appears under `path` complete, or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    encoding = None if "b" in mode else "utf-8"
    handle, part = tempfile.mkstemp(prefix=f".{path.name}-", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, mode, encoding=encoding) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(part, 0o666 & ~_umask())
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def read_json(fpath: str | Path) -> Any:
    with open(fpath, encoding="utf-8") as file:
        try:
            return json.load(file)
        except ValueError as error:
            raise WrongValue(f"{fpath} is not valid JSON ({error}). Delete it or get it again.") from error


def write_json(obj: Any, fpath: str | Path) -> None:
    with atomic_write(fpath) as file:
        json.dump(obj, file, indent=4, separators=(",", ": "))
        file.write("\n")


def read_image(path: str | Path) -> Image.Image:
    """The image in RGB, fully decoded."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except FileNotFoundError as error:
        raise BadImage(f"There is no image at {path}. Check DATASET.ROOT (--root), or copy the file there.") from error
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise BadImage(f"The image {path} cannot be decoded ({error}). Get the file again, or take it out of "
                       "the dataset's lists.") from error


def get_most_similar_str_to_a_from_b(a: str, b: list[str]) -> str | None:
    """The string in `b` nearest to `a`; None if none is near."""
    return nearest(a, b)


def check_availability(requested: str, available: list[str]) -> None:
    """Raises where `requested` is not one of `available`, suggesting the nearest."""
    if requested not in available:
        raise WrongValue(f"{requested!r} is not one of {list(available)}{suggestion(requested, available)}.")


def tolist_if_not(x: Any) -> list:
    return x if isinstance(x, list) else [x]
