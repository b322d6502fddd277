"""Files, folders, seeds and facts about this machine."""
from __future__ import annotations

import difflib
import json
import logging
import os
import os.path as osp
import platform
import random
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image, ImageOps, UnidentifiedImageError

from dassl.compat.passed_on import passed_on
from dassl.files.whole import write_whole

from .errors import UserError

logger = logging.getLogger(__name__)
__getattr__ = passed_on(__name__)

_ORIENTATION = 0x0112                           # EXIF's tag
# What systems and programs keep among images for themselves, in small letters; a dot in front hides any name.
_HIDDEN = {"__macosx", "@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "$recycle.bin",
           "lost+found", "system volume information", "__pycache__", "thumbs.db", "ehthumbs.db", "desktop.ini"}
_warned_of: list[str] = []                           # an image that is drawn in its transparency


def mkdir_if_missing(dirname: str) -> None:
    os.makedirs(dirname, exist_ok=True)


def check_isfile(fpath: str) -> bool:
    """Whether the file is there; warns if it is not."""
    if not (found := osp.isfile(fpath)):
        warnings.warn(f'No file found at "{fpath}"', stacklevel=2)
    return found


def read_json(fpath: str):
    with open(fpath, encoding="utf-8") as file:
        return json.load(file)


def read_settings(folder: str | os.PathLike) -> dict:
    """config.yaml of a run folder, plain; {} where there is none, or none that can be read."""
    try:
        content = yaml.safe_load(Path(folder, "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) and all(isinstance(content.get(name, {}), dict)
                                                        for name in ("OPTIM", "DATASET")) else {}


def write_json(obj, fpath: str) -> None:
    """Whole or not at all: written to a temporary file and renamed."""
    write_text(json_text(obj), fpath)


def json_text(obj) -> str:
    """As Dassl's write_json spells it."""
    return json.dumps(obj, indent=4, separators=(",", ": "))


def write_text(text: str, fpath: str) -> None:
    """UTF-8, whole or not at all: a temporary file, renamed. What UTF-8 cannot say of a file's name is escaped."""
    write_whole(fpath, text.encode(errors="backslashreplace"))


def cache_dir() -> Path:
    """The user's cache folder of this software: $XDG_CACHE_HOME or ~/.cache, then "dassl"."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "dassl"


def set_random_seed(seed: int) -> None:
    """Seed Python's, NumPy's and torch's streams, on all devices."""
    random.seed(seed)
    np.random.seed(seed % 2 ** 32)
    torch.manual_seed(seed)
    torch.cuda.manual_seed_all(seed)


def read_image(path: str) -> Image.Image:
    """RGB image, 8 bits per channel, upright as the camera noted it; transparency is dropped and 16 bits are scaled.

    Raises:
        UserError: no such file, or one that is not a readable image; names it.
    """
    try:
        with Image.open(path) as image:
            return to_rgb(image)
    except FileNotFoundError as error:
        raise UserError(f"No image at {path}. Check DATASET.ROOT and that the dataset is complete.") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} is not a readable image ({_reason(path, error)}). Fetch or copy it again.") from error


def why_unreadable(path: str) -> str:
    """Why `read_image` would refuse a file, or ""; reads a JPEG at an eighth of its size, but to its end."""
    if os.path.exists(path) and not os.path.isfile(path):
        return "it is no regular file"                          # reading a pipe would wait for ever
    try:
        with Image.open(path) as image:
            _refuse_float(image)
            image.draft("L", (1, 1))
            image.load()
        return ""
    except Exception as error:  # PIL raises many types for damaged files; each means unreadable
        return _reason(path, error)


def to_rgb(image: Image.Image) -> Image.Image:
    """What `read_image` makes of an open image; the argument stays as it is. Raises what PIL raises for a damaged one.
    """
    _refuse_float(image)
    name = getattr(image, "filename", "") or "An image"
    try:
        turned = image.getexif().get(_ORIENTATION, 1) != 1
    except Exception:  # a damaged note next to the pixels does not damage them
        turned = False
    image = ImageOps.exif_transpose(image) if turned else image
    if image.mode.startswith("I"):              # PIL would cut everything above 255 instead of scaling it
        pixels = np.asarray(image).astype(np.int64)
        image = Image.fromarray((pixels >> 8 if pixels.max() > 255 else pixels).clip(0, 255).astype(np.uint8))
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")           # directly to RGB, PIL warns
    rgb = image.convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") and _is_drawn_in_transparency(image, rgb):
        _tell_of_transparency(name)
    return rgb


def _is_drawn_in_transparency(image: Image.Image, rgb: Image.Image) -> bool:
    """Whether the picture is in the transparency alone, so that one colour is left without it."""
    low, high = image.getchannel("A").getextrema()
    return low < high and all(low == high for low, high in rgb.getextrema())


def _tell_of_transparency(name: str) -> None:
    """Once in a process: such images come in hundreds."""
    if not _warned_of:
        _warned_of.append(name)
        logger.warning("%s is of one colour once its transparency is dropped, as CLIP drops it: what is drawn there is "
                       "not seen. Put such images on a white ground", name)


def _refuse_float(image: Image.Image) -> None:
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range; save it with 8 or 16 bits")


def _reason(path: str, error: Exception) -> str:
    if osp.exists(path) and not osp.getsize(path):
        return "it is empty (0 bytes)"
    if isinstance(error, UnidentifiedImageError):
        return "no known image format"
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more than {2 * Image.MAX_IMAGE_PIXELS / 1e6:.0f} million pixels; make it smaller"
    return " ".join(str(error).split()) or type(error).__name__


def collect_env_info() -> str:
    """Versions and machine, a line each."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    facts = {"Python": sys.version.split()[0], "PyTorch": torch.__version__, "NumPy": np.__version__,
             "Platform": platform.platform(), "CPU cores": os.cpu_count(), "GPUs": ", ".join(gpus) or "none",
             "CUDA": torch.version.cuda if gpus else "not used"}
    return "\n".join(f"{name}: {value}" for name, value in facts.items())


def is_hidden(name: str) -> bool:
    """Whether a file or folder of that name is a system's or a program's own: .DS_Store, @eaDir, recycle bins."""
    return name.startswith(".") or name.casefold() in _HIDDEN


def listdir_nohidden(path: str, sort: bool = False) -> list[str]:
    items = [f for f in os.listdir(path) if not is_hidden(f)]
    return sorted(items) if sort else items


def get_most_similar_str_to_a_from_b(a: str, b) -> str:
    """The string of `b` most like `a`."""
    return max(b, key=lambda s: difflib.SequenceMatcher(None, a, s).ratio())


def check_availability(requested: str, available) -> None:
    """Raises UserError, with the nearest one, for a name that is not among those."""
    if requested not in available:
        raise UserError(f"{requested!r} is not one of {', '.join(available)}. Did you mean "
                        f"{get_most_similar_str_to_a_from_b(requested, available)}?")


def download_url(url: str, dst: str) -> None:
    """Fetch a file to `dst`, whole or not at all, with a progress line.

    Raises:
        UserError: it cannot be fetched.
    """
    mkdir_if_missing(osp.dirname(dst) or ".")
    try:
        torch.hub.download_url_to_file(url, dst)
    except (OSError, ValueError) as error:              # URLError and HTTPError are OSErrors
        raise UserError(f"{url} cannot be fetched ({error}). Download it by hand and place it at {dst}.") from error


def tolist_if_not(x) -> list:
    return x if isinstance(x, list) else [x]


def count_num_param(model=None, params=None) -> int:
    """Numbers in a model's parameters, or in `params` (an iterable of tensors or of optimiser groups)."""
    if model is not None:
        return sum(p.numel() for p in model.parameters())
    if params is None:
        raise ValueError("count_num_param counts a model or params; both are None.")
    return sum(p.numel() for g in params for p in (g["params"] if isinstance(g, dict) else [g]))
