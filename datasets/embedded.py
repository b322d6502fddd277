"""Where the datasets that come with the project get their images: scikit-learn's digits, and files written once."""

import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from dassl.utils import UserError, cache_dir
from datasets.rendering import COLOURS, GREYS, SHAPES, TEXTURES, render_shapes

logger = logging.getLogger(__name__)

DRAWING = 2  # raise it when any image changes: folders of an older drawing are then left alone
SPLITS = ("train", "val", "test")
DIGITS_SHARE = (0.4, 0.2, 0.4)
SHAPES_PER_CLASS = {"train": 20, "val": 10, "test": 50}


def digit_images() -> tuple[np.ndarray, np.ndarray]:
    """The UCI digits: (1797, 8, 8) uint8, 0 background to 255 ink, and labels (1797,)."""
    images, labels = _scikit_learns_digits()
    return np.round(images.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8), labels.astype(int)


@lru_cache(maxsize=1)
def _scikit_learns_digits() -> tuple[np.ndarray, np.ndarray]:
    """`load_digits(return_X_y=True)`, read from its file, because scikit-learn takes long to import."""
    package = find_spec("sklearn")
    file = Path(package.submodule_search_locations[0], "datasets", "data", "digits.csv.gz") if package else None
    if file is None or not file.is_file():
        from sklearn.datasets import load_digits

        return load_digits(return_X_y=True)
    table = np.loadtxt(file, delimiter=",")
    return table[:, :-1], table[:, -1]


def digit_splits() -> dict[str, np.ndarray]:
    """Indices of the fixed split, stratified by class: 40 % train, 20 % val, 40 % test."""
    _, labels = digit_images()
    rng = np.random.RandomState(0)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in SPLITS}
    for label in range(10):
        index = rng.permutation(np.flatnonzero(labels == label))
        cuts = np.round(np.cumsum(DIGITS_SHARE)[:2] * len(index)).astype(int)
        for name, part in zip(SPLITS, np.split(index, cuts), strict=True):
            parts[name].append(part)
    return {name: np.sort(np.concatenate(part)) for name, part in parts.items()}


def fade_digits(images: np.ndarray, contrast: float = 0.22, noise: float = 0.06) -> np.ndarray:
    """Digits in pale grey on grey with a little noise, the same for the same images.

    Args:
        images: (N, 8, 8) uint8.
    Returns:
        (N, 8, 8) uint8.
    """
    grain = np.random.RandomState(1).standard_normal(images.shape) * noise
    faded = 0.45 + contrast * (images / 255.0 - 0.5) + grain
    return np.round(np.clip(faded, 0, 1) * 255).astype(np.uint8)


def shape_combinations() -> list[tuple[int, int, int]]:
    """The 48 (shape, colour, texture) index triples that are classes of `shapes`: a quarter of all 192.

    Every shape, colour and texture is in it equally often or nearly so, and no two of the three determine the third.
    """
    return [
        (s, c, t)
        for s in range(len(SHAPES))
        for c in range(len(COLOURS))
        for t in range(len(TEXTURES))
        if (s + c + s // 4 + t) % 4 == 0
    ]


def held_out_combinations() -> list[tuple[int, int, int]]:
    """The 16 classes of `shapes` that pretraining never drew: one third of them."""
    return [(s, c, t) for s, c, t in shape_combinations() if (2 * s + c + s // 3) % 3 == 1]


def shape_backgrounds(combination: tuple[int, int, int], shift: str = "none") -> np.ndarray:
    """What is behind the shape in all images of one class, (80,) indices into `rendering.BACKGROUNDS`."""
    number, count = shape_combinations().index(combination), sum(SHAPES_PER_CLASS.values())
    if shift == "recoloured":
        others = [i for i in range(len(COLOURS)) if i != combination[1]]
        return len(GREYS) + np.random.RandomState([12, number]).choice(others, count)
    return np.random.RandomState([11, number]).randint(len(GREYS), size=count)


def shape_images(combination: tuple[int, int, int], shift: str = "none") -> np.ndarray:
    """All images of one class, train then val then test, (80, 64, 64, 3) uint8; a shift keeps the geometry."""
    number = shape_combinations().index(combination)
    background = shape_backgrounds(combination, shift)
    columns = (np.full(len(background), i) for i in combination)
    images = render_shapes(np.random.RandomState([10, number]), *columns, background, size=64, shift=shift, noise=0.0)
    return np.round(images * 255).astype(np.uint8)


class UnwritableRoot(UserError, OSError):
    """No folder takes the images of an embedded dataset."""


def write_once(root: str, name: str, draw: Callable[[], Iterator[tuple[str, np.ndarray]]]) -> Path:
    """The folder `<root>/<name>-v<DRAWING>` of all images that `draw` yields, as PNG; drawn if it is not there yet.

    The folder appears complete or not at all, also when several runs start together.

    Args:
        root: dataset root; where it is empty or cannot be written to, the user's cache folder is used.
        draw: yields (relative path, uint8 image), or the frames (T, H, W, 3) of an animated one.
    """
    name = f"{name}-v{DRAWING}"
    candidates = [Path(p).expanduser().absolute() for p in (root, cache_dir()) if p]
    for folder in candidates:
        if (folder / name).is_dir():
            return folder / name
    for folder in candidates:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            part = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder))
        except OSError as error:
            logger.info("Cannot write the images of %s to %s (%s)", name, folder, error)
            continue
        logger.info("Writing the images of %s to %s (once)", name, folder)
        try:
            return _fill(part, folder / name, draw)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    raise UnwritableRoot(
        f"The images of `{name}` come with the project, but there is nowhere to put them: tried "
        f"{' and '.join(map(str, candidates))}. Name a folder that you can write to with --root or DATA."
    )


def _fill(part: Path, target: Path, draw: Callable[[], Iterator[tuple[str, np.ndarray]]]) -> Path:
    part.chmod(0o755)
    count = 0
    for relative, image in draw():
        path = part / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        if image.ndim == 4:
            first, *rest = map(Image.fromarray, image)
            first.save(path, save_all=True, append_images=rest, duration=100)
        else:
            Image.fromarray(image).save(path)
        count += 1
    try:
        part.rename(target)
    except OSError:
        if not target.is_dir():
            raise
        return target  # another run was faster
    logger.info("Wrote %d images to %s", count, target)
    return target
