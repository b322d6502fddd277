"""OpenAI's functions: CLIP's names, files, loading and tokens, for code that says `from clip import clip`.

`_download` gives the path of a plain state dict. `torch.jit.load` raises RuntimeError on it, so that the widespread

    try:
        model = torch.jit.load(model_path, map_location="cpu").eval()
    except RuntimeError:
        state_dict = torch.load(model_path, map_location="cpu")

never runs the code of an archive, and reads the file with `torch.load`'s safe default.
Source: CLIP (Radford et al., ICML 2021), clip/clip.py.
"""
from __future__ import annotations

import logging
import os
from pathlib import Path

import torch

from .backbones import BACKBONES, PIXEL_MEAN, PIXEL_STD, TINY, resolve
from .errors import InputError
from .model import build_model
from .simple_tokenizer import SimpleTokenizer
from .state_dicts import is_plain, read_state_dict
from .tiny import TINY_FILE, read_tiny
from .tokenizer import tokenize
from .weights import cache_folders, fetch, file_sha256

__all__ = ["available_models", "load", "tokenize"]

logger = logging.getLogger(__name__)

_tokenizer = SimpleTokenizer()


class _Models(dict):
    """Name -> address. The path of a file with CLIP's weights is its own address."""

    def __missing__(self, name: str) -> str:
        if isinstance(resolve(name), Path):
            return name
        raise InputError(f"{name!r} is open_clip's; a state dict does not say its activation and heads, so OpenAI's "
                         f"layout cannot hold it. Take one of {', '.join(self)}, a file in that layout, or a trainer "
                         "of this project, which read open_clip's names.")


_MODELS = _Models({name: backbone.url for name, backbone in BACKBONES.items()} | {TINY: TINY})


def available_models() -> list[str]:
    """Names that `load` takes, besides the path of a file."""
    return list(_MODELS)


def load(name: str, device: str | torch.device | None = None, jit: bool = False, download_root: str | None = None):
    """A model and the transform of its images.

    Args:
        name: one of `available_models()`, or the path of a file with weights in OpenAI's layout.
        device: where the model goes; None: the GPU if there is one. Float32 on a CPU, half precision on a GPU.
        jit: ignored; the archive's own code is never run.
        download_root: the folder where the file is looked for first.
    Returns:
        (CLIP, a transform from a PIL image to (3, H, H)).
    """
    if jit:
        logger.warning("jit=True is ignored: the code in the archive is not run; the model is the same module.")
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    path = _download(_MODELS[name], download_root)
    model = build_model(torch.load(path, map_location="cpu", weights_only=True))
    if device.type == "cpu":
        model.float()
    return model.to(device), _transform(model.visual.input_resolution)


def _download(url: str, root: str | None = None) -> str:
    """Path of a plain state dict of what `_MODELS` names; fetched, verified and converted once, then in the cache.

    OpenAI's file is looked for in the folder `root` first.

    Raises:
        InputError: another address, a damaged file; WeightsNotFound: no file and no network.
    """
    if url == TINY:
        return str(_converted(TINY_FILE, lambda: read_tiny()[0]))
    backbone = next((b for b in BACKBONES.values() if b.url == url), None)
    path = Path(url).expanduser()
    if backbone is not None:
        path = Path(root or "").expanduser() / backbone.file
        if not (root and path.is_file() and file_sha256(path) == backbone.sha256):
            path = fetch(backbone)
    if not path.is_file():
        raise InputError(f"{url} is neither an address of OpenAI's release nor a file. "
                         f"Fetch it and give the file's path, or take one of {', '.join(_MODELS)}.")
    if not is_plain(path):
        return str(_converted(path, lambda: read_state_dict(path)))
    return str(path)


def _converted(path: Path, read) -> Path:
    """A state-dict file of what `read` gives, in the first cache folder that can be written; made if not there yet."""
    name = f"{path.stem}-{file_sha256(path)[:12]}.state_dict.pt"
    if found := next((folder / name for folder in cache_folders() if (folder / name).is_file()), None):
        return found
    weights, errors = {k: v.contiguous() for k, v in read().items()}, []
    for folder in cache_folders():
        part = folder / f"{name}.{os.getpid()}.part"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            torch.save(weights, part)
            return part.replace(folder / name)
        except (OSError, RuntimeError) as error:      # torch.save raises RuntimeError where it cannot write
            part.unlink(missing_ok=True)
            errors.append(f"{folder}: {error}")
    raise InputError(f"The state dict of {path} needs a folder that can be written; tried {'; '.join(errors)}. "
                     "Set CLIP_CACHE to one.")


def _transform(n_px: int):
    """A PIL image of any size and mode -> (3, n_px, n_px), CLIP's normalisation included."""
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor

    return Compose([Resize(n_px, interpolation=InterpolationMode.BICUBIC), CenterCrop(n_px), _convert_image_to_rgb,
                    ToTensor(), Normalize(PIXEL_MEAN, PIXEL_STD)])


def _convert_image_to_rgb(image):
    return image.convert("RGB")
