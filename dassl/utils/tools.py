"""Files, folders, seeds and facts about this machine."""
from __future__ import annotations

import difflib
import json
import os
import os.path as osp
import platform
import random
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from .errors import UserError


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


def write_json(obj, fpath: str) -> None:
    """Whole or not at all: written beside and renamed."""
    mkdir_if_missing(osp.dirname(fpath) or ".")
    text = json.dumps(obj, indent=4, separators=(",", ": "))      # before a file exists that could be left behind
    with tempfile.NamedTemporaryFile("w", dir=osp.dirname(fpath) or ".", delete=False, encoding="utf-8") as file:
        file.write(text)
    os.chmod(file.name, 0o644)
    os.replace(file.name, fpath)


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
    """RGB image.

    Raises:
        UserError: no such file, or one that is no readable image; names it.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except FileNotFoundError as error:
        raise UserError(f"No image at {path}. Check DATASET.ROOT and that the dataset is complete.") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path} is not a readable image ({error}). Fetch or copy it again.") from error


def collect_env_info() -> str:
    """Versions and machine, a line each."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    facts = {"Python": sys.version.split()[0], "PyTorch": torch.__version__, "NumPy": np.__version__,
             "Platform": platform.platform(), "CPU cores": os.cpu_count(), "GPUs": ", ".join(gpus) or "none",
             "CUDA": torch.version.cuda if gpus else "not used"}
    return "\n".join(f"{name}: {value}" for name, value in facts.items())


def listdir_nohidden(path: str, sort: bool = False) -> list[str]:
    items = [f for f in os.listdir(path) if not f.startswith(".")]
    return sorted(items) if sort else items


def get_most_similar_str_to_a_from_b(a: str, b) -> str:
    """The string of `b` most like `a`."""
    return max(b, key=lambda s: difflib.SequenceMatcher(None, a, s).ratio())


def tolist_if_not(x) -> list:
    return x if isinstance(x, list) else [x]


def count_num_param(model=None, params=None) -> int:
    """Numbers in a model's parameters, or in `params` (an iterable of tensors or of optimiser groups)."""
    if model is not None:
        return sum(p.numel() for p in model.parameters())
    if params is None:
        raise ValueError("count_num_param counts a model or params; both are None.")
    return sum(p.numel() for g in params for p in (g["params"] if isinstance(g, dict) else [g]))
