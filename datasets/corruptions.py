"""The fifteen common corruptions of ImageNet-C and CIFAR-10-C at severities 1 to 5, on NumPy, SciPy and Pillow alone.

Source: Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and Perturbations,
ICLR 2019; hendrycks/robustness ca36008, ImageNet-C/create_c/make_imagenet_c.py and make_cifar_c.py, for what is done
and how strongly. Images of at least 128 pixels take ImageNet-C's strengths, smaller ones CIFAR-10-C's. The motion blur
follows ImageMagick's, one-sided. Frost is drawn here, with the mean and deviation of the authors' photographs, which
are not shipped. How near the results are to the package imagecorruptions, and why it is not used: datasets/README.md.
"""
from __future__ import annotations

import io
import math
from collections.abc import Callable

import numpy as np
from PIL import Image

LARGE = 128                         # pixels of a side, from which ImageNet-C's strengths are taken
NAMES = ("gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur",
         "snow", "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression")
_Rng = np.random.RandomState
_GREY = np.array([0.299, 0.587, 0.114])


def _scipy():
    """scipy.ndimage, which no command but a corrupted test should wait for."""
    from scipy import ndimage

    return ndimage



def corrupt(image: Image.Image, name: str, severity: int, seed: int) -> Image.Image:
    """The image (RGB, square) under a corruption of NAMES; the same for the same seed.

    Args:
        severity: 1 to 5.
    """
    small, large = _STRENGTHS[name]
    strength = (large if image.width >= LARGE else small)[severity - 1]
    pixels = _OF[name](np.asarray(image) / 255.0, strength, np.random.RandomState(seed))
    return Image.fromarray((np.clip(pixels, 0, 1) * 255).astype(np.uint8))


# Each takes pixels (S, S, 3) in [0, 1], a strength and a random stream, and gives pixels in about [0, 1].

def _gaussian_noise(x: np.ndarray, deviation: float, rng: _Rng) -> np.ndarray:
    return x + rng.normal(size=x.shape, scale=deviation)


def _shot_noise(x: np.ndarray, photons: float, rng: _Rng) -> np.ndarray:
    return rng.poisson(x * photons) / photons


def _impulse_noise(x: np.ndarray, share: float, rng: _Rng) -> np.ndarray:
    return np.where(rng.random_sample(x.shape) < share, rng.random_sample(x.shape) < 0.5, x)


def _defocus_blur(x: np.ndarray, c: tuple[float, float], rng: _Rng) -> np.ndarray:
    radius, softness = c
    reach, width = (8, 1) if radius <= 8 else (math.ceil(radius), 2)
    line = np.arange(-reach, reach + 1)
    disk = (line[:, None] ** 2 + line ** 2 <= radius ** 2).astype(float)
    bell = np.exp(-np.arange(-width, width + 1) ** 2 / (2 * softness ** 2))
    bell /= bell.sum()
    kernel = _scipy().correlate(disk / disk.sum(), np.outer(bell, bell), mode="mirror")
    return _scipy().correlate(x, kernel[..., None], mode="mirror")


def _glass_blur(x: np.ndarray, c: tuple[float, int, int], rng: _Rng) -> np.ndarray:
    deviation, reach, times = c
    S = len(x)
    pixels = (_soft(x, deviation) * 255).astype(np.uint8).reshape(-1, 3).tolist()
    places = range(S - reach, reach, -1)
    for _ in range(times):
        steps = iter(rng.randint(-reach, reach, size=(len(places) ** 2, 2)).tolist())
        for row in places:
            for column in places:                   # copied, not exchanged, as the authors' assignment of views does
                dx, dy = next(steps)
                pixels[row * S + column] = pixels[(row + dy) * S + column + dx]
    return _soft(np.array(pixels).reshape(x.shape) / 255, deviation)


def _motion_blur(x: np.ndarray, c: tuple[float, float], rng: _Rng) -> np.ndarray:
    return _moved(x, *c, rng.uniform(-45, 45))


def _zoom_blur(x: np.ndarray, factors: np.ndarray, rng: _Rng) -> np.ndarray:
    return (x + sum(_zoomed(x, factor) for factor in factors)) / (len(factors) + 1)


def _snow(x: np.ndarray, c: tuple[float, ...], rng: _Rng) -> np.ndarray:
    mean, deviation, zoom, least, radius, blur, kept = c
    flakes = _zoomed(rng.normal(mean, deviation, x.shape[:2])[..., None], zoom)
    flakes = _moved(np.where(flakes < least, 0, flakes).clip(0, 1), radius, blur, rng.uniform(-135, -45))
    pale = kept * x + (1 - kept) * np.maximum(x, (x @ _GREY)[..., None] * 1.5 + 0.5)
    return pale + flakes + np.rot90(flakes, 2)


def _frost(x: np.ndarray, c: tuple[float, float], rng: _Rng) -> np.ndarray:
    ridges = 1 - np.abs(2 * _plasma(_power_of_two(len(x)), 1.7, rng)[:len(x), :len(x)] - 1)
    ridges = (ridges - ridges.mean()) / max(ridges.std(), 1e-6)
    mean, deviation = _FROST[rng.randint(len(_FROST))]
    return c[0] * x + c[1] * (np.array(mean) + ridges[..., None] * deviation).clip(0, 1)


def _fog(x: np.ndarray, c: tuple[float, float], rng: _Rng) -> np.ndarray:
    S, brightest = len(x), x.max()
    thick = c[0] * _plasma(_power_of_two(S), c[1], rng)[:S, :S, None]
    return (x + thick) * brightest / (brightest + c[0])


def _brightness(x: np.ndarray, more: float, rng: _Rng) -> np.ndarray:
    value = x.max(axis=-1, keepdims=True)                               # of hue, saturation and value; the rest stays
    return np.where(value > 0, x / np.maximum(value, 1e-12), 1) * (value + more).clip(0, 1)


def _contrast(x: np.ndarray, share: float, rng: _Rng) -> np.ndarray:
    mean = x.mean(axis=(0, 1), keepdims=True)
    return (x - mean) * share + mean


def _elastic_transform(x: np.ndarray, c: tuple[float, float, float], rng: _Rng) -> np.ndarray:
    push, smooth, shear = c
    centre, third = len(x) // 2, len(x) // 3
    before = np.array([[centre + third] * 2, [centre + third, centre - third], [centre - third] * 2], float)   # x, y
    after = before + rng.uniform(-shear, shear, before.shape)
    back = np.linalg.solve(np.c_[after, np.ones(3)], before)            # (3, 2): from new x, y, 1 to old x, y
    row, column = (axis.astype(float) for axis in np.mgrid[:len(x), :len(x)])
    old = np.stack([column, row, np.ones_like(row)], -1) @ back
    x = _at(x, old[..., 1], old[..., 0], "mirror")
    right, down = (_scipy().gaussian_filter(rng.uniform(-1, 1, row.shape), smooth, mode="reflect", truncate=3) * push
                   if push else 0 for _ in range(2))
    return _at(x, row + down, column + right, "reflect")


def _pixelate(x: np.ndarray, share: float, rng: _Rng) -> np.ndarray:
    image = Image.fromarray(np.round(x * 255).astype(np.uint8))
    small = image.resize([int(side * share) for side in image.size], Image.Resampling.BOX)
    return np.asarray(small.resize(image.size, Image.Resampling.BOX)) / 255


def _jpeg_compression(x: np.ndarray, quality: int, rng: _Rng) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(np.round(x * 255).astype(np.uint8)).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)) / 255


def _soft(x: np.ndarray, deviation: float) -> np.ndarray:
    return _scipy().gaussian_filter(x, (deviation, deviation, 0), mode="nearest")


def _zoomed(x: np.ndarray, factor: float) -> np.ndarray:
    """The middle of (S, S, k), enlarged to the same size."""
    S = len(x)
    side = math.ceil(S / factor)
    top = (S - side) // 2
    x = _scipy().zoom(x[top:top + side, top:top + side], (factor, factor, 1), order=1)
    first = (len(x) - S) // 2
    return x[first:first + S, first:first + S]


def _moved(x: np.ndarray, radius: float, deviation: float, angle: float) -> np.ndarray:
    """Smeared along a direction, in degrees; the border is repeated."""
    steps, turn, S = np.arange(2 * int(radius) + 1), math.radians(angle), len(x)
    weights = np.exp(-steps ** 2 / (2 * deviation ** 2))
    padded = np.pad(x, ((S, S), (S, S), (0, 0)), mode="edge")
    total = np.zeros_like(x)
    for step, weight in zip(steps, weights / weights.sum()):
        down, right = (-math.ceil(step * part - 0.5) for part in (math.sin(turn), math.cos(turn)))
        if abs(down) < S and abs(right) < S:
            total += weight * padded[S - down:2 * S - down, S - right:2 * S - right]
    return total


def _plasma(side: int, decay: float, rng: _Rng) -> np.ndarray:
    """(side, side) in [0, 1] by the diamond-square rule; `side` is a power of two, and the edges meet."""
    field, step, jitter = np.zeros((side, side)), side, 100.0
    while step >= 2:
        half = step // 2

        def mean(total: np.ndarray, jitter: float = jitter) -> np.ndarray:
            return total / 4 + jitter * rng.uniform(-jitter, jitter, total.shape)

        corners = field[::step, ::step]
        pairs = corners + np.roll(corners, -1, 0)
        field[half::step, half::step] = mean(pairs + np.roll(pairs, -1, 1))
        centres = field[half::step, half::step]
        field[::step, half::step] = mean(centres + np.roll(centres, 1, 0) + corners + np.roll(corners, -1, 1))
        field[half::step, ::step] = mean(centres + np.roll(centres, 1, 1) + corners + np.roll(corners, -1, 0))
        step, jitter = half, jitter / decay
    field -= field.min()
    return field / max(field.max(), 1e-12)


def _at(x: np.ndarray, row: np.ndarray, column: np.ndarray, mode: str) -> np.ndarray:
    return np.stack([_scipy().map_coordinates(channel, (row, column), order=1, mode=mode)
                     for channel in np.moveaxis(x, -1, 0)], -1)


def _power_of_two(S: int) -> int:
    return 1 << (S - 1).bit_length()


_OF: dict[str, Callable[..., np.ndarray]] = {name: globals()[f"_{name}"] for name in NAMES}
_FROST = (((0.305, 0.585, 0.650), 0.08), ((0.787, 0.805, 0.841), 0.09), ((0.787, 0.805, 0.841), 0.09),
          ((0.540, 0.599, 0.648), 0.11), ((0.441, 0.484, 0.528), 0.17))     # of the photographs that are drawn from

# Severities 1 to 5: of CIFAR-10-C, and of ImageNet-C.
_STRENGTHS = {
    "gaussian_noise": ((0.04, 0.06, 0.08, 0.09, 0.10), (0.08, 0.12, 0.18, 0.26, 0.38)),
    "shot_noise": ((500, 250, 100, 75, 50), (60, 25, 12, 5, 3)),
    "impulse_noise": ((0.01, 0.02, 0.03, 0.05, 0.07), (0.03, 0.06, 0.09, 0.17, 0.27)),
    "defocus_blur": (((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
                     ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))),
    "glass_blur": (((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
                   ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))),
    "motion_blur": (((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)), ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))),
    "zoom_blur": (tuple(np.arange(1, end, 0.01) for end in (1.06, 1.11, 1.16, 1.21, 1.26)),
                  tuple(np.arange(1, end, step) for end, step in ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02),
                                                                  (1.26, 0.02), (1.31, 0.03)))),
    "snow": (((0.1, 0.2, 1, 0.6, 8, 3, 0.95), (0.1, 0.2, 1, 0.5, 10, 4, 0.9), (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
              (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85), (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8)),
             ((0.1, 0.3, 3, 0.5, 10, 4, 0.8), (0.2, 0.3, 2, 0.5, 12, 4, 0.7), (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
              (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65), (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55))),
    "frost": (((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
              ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))),
    "fog": (((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
            ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))),
    "brightness": ((0.05, 0.1, 0.15, 0.2, 0.3), (0.1, 0.2, 0.3, 0.4, 0.5)),
    "contrast": ((0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05)),
    "elastic_transform": (tuple((32 * a, 32 * b, 32 * c) for a, b, c in (
                              (0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05),
                              (0.1, 0.03, 0.03))),
                          tuple((244 * a, 244 * b, 244 * c) for a, b, c in (
                              (2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02),
                              (0.12, 0.01, 0.02)))),
    "pixelate": ((0.95, 0.9, 0.85, 0.75, 0.65), (0.6, 0.5, 0.4, 0.3, 0.25)),
    "jpeg_compression": ((80, 65, 58, 50, 40), (25, 18, 15, 10, 7)),
}
