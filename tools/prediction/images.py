"""Images as users name them: files, folders, globs, PIL images and arrays."""
from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from dassl.utils import UserError, is_hidden, read_image
from dassl.utils.tools import to_rgb
from datasets.own_folders import SUFFIXES

ENDINGS = tuple(sorted(SUFFIXES))


def find(words: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    """Files that are named by files, folders (with all below them) and globs, each once, in order.

    A folder or glob gives the files with an image's ending, sorted, hidden ones left out; a file that is named itself
    is taken whatever its ending.

    Returns:
        Paths, and {word: why it names no image} for the words that do not.
    """
    found, nothing = {}, {}
    for word in words:
        path = os.path.expanduser(word)
        if os.path.isdir(path):
            files = list(_below(Path(path)))
            why = f"no image in this folder ({', '.join(ENDINGS)})"
        elif os.path.isfile(path):
            files, why = [path], ""
        elif os.path.lexists(path):
            files, why = [], "no file: a broken link, or a device"
        elif glob.has_magic(path):
            files = [name for name in sorted(glob.glob(path, recursive=True)) if os.path.isfile(name)
                     and name.lower().endswith(ENDINGS)]
            why = "no image fits this pattern"
        else:
            files, why = [], "no such file or folder"
        found.update(dict.fromkeys(files))
        if not files:
            nothing[word] = why
    return list(found), nothing


def _below(folder: Path) -> Iterator[str]:
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        yield from (os.path.join(place, name) for name in sorted(files)
                    if name.lower().endswith(ENDINGS) and not is_hidden(name))


def as_list(images) -> list:
    """One image or several -> a list of images; an array (B, H, W, 3) is B of them."""
    if isinstance(images, np.ndarray) and images.ndim == 4:
        return list(images)
    if isinstance(images, (str, os.PathLike, Image.Image, np.ndarray)):
        return [images]
    try:
        return list(images)
    except TypeError:
        raise UserError("Images must be paths, PIL images or NumPy arrays, or an iterable of these, got "
                        f"{type(images).__name__}.") from None


def name_of(image, place: int) -> str:
    """The path of an image, or else its place in the list."""
    if isinstance(image, (str, os.PathLike)):
        return os.fspath(image)
    return getattr(image, "filename", "") or f"image {place}"


def read(image, name: str) -> Image.Image:
    """An RGB image of 8 bits per channel, upright.

    Args:
        image: path, PIL image, or array: (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), uint8, or floats in [0, 1].
        name: for the error.
    Raises:
        UserError: no readable image; names it.
    """
    try:
        if isinstance(image, (str, os.PathLike)):
            if not os.path.isfile(image):
                raise UserError(f"{name}: there is no such file.")
            return read_image(os.fspath(image))
        return to_rgb(image if isinstance(image, Image.Image) else _from_array(image))
    except UserError:
        raise
    except Exception as error:  # PIL raises many types for damaged images; each means unreadable
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{name} is not a readable image ({reason}).") from error


def _from_array(pixels) -> Image.Image:
    if not isinstance(pixels, np.ndarray):
        raise TypeError(f"images are paths, PIL images or NumPy arrays; this is a {type(pixels).__name__}")
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if 0 in pixels.shape or not (pixels.ndim == 2 or pixels.ndim == 3 and pixels.shape[2] in (3, 4)):
        raise ValueError(f"an array is (H, W), (H, W, 3) or (H, W, 4); its shape is {pixels.shape}")
    if np.issubdtype(pixels.dtype, np.floating):
        if not (pixels.min() >= 0 and pixels.max() <= 1):                          # NaN is neither
            raise ValueError(f"floats are in [0, 1]; these are in [{pixels.min():g}, {pixels.max():g}]")
        pixels = np.round(255 * pixels).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise ValueError(f"an array holds uint8, or floats in [0, 1]; it is {pixels.dtype}")
    return Image.fromarray(np.ascontiguousarray(pixels))
