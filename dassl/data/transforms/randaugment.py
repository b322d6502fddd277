"""RandAugment and two relatives on PIL images, with the operations, strengths and draws of Dassl 0.6.3.

Draws come from Python's random stream, the place of a hole from NumPy's; equal streams give Dassl's images.
Source: RandAugment (Cubuk et al., 2020), FixMatch (Sohn et al., 2020); Dassl 0.6.3, transforms/randaugment.py.
"""
from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from dassl.utils.errors import UserError

GREY = (125, 123, 114)      # ImageNet's mean colour, which fills a hole
Operation = Callable[[Image.Image, float], Image.Image]


def _either_sign(operation: Operation) -> Operation:
    """`operation` with the sign of its strength drawn, also where the strength already has one."""
    return lambda img, v: operation(img, -v if random.random() > 0.5 else v)


def _affine(matrix: Callable[[Image.Image, float], tuple[float, ...]]) -> Operation:
    return _either_sign(lambda img, v: img.transform(img.size, Image.Transform.AFFINE, matrix(img, v)))


def _enhance(kind: type) -> Operation:
    return lambda img, v: kind(img).enhance(v)


def _plain(change: Callable[[Image.Image], Image.Image]) -> Operation:
    return lambda img, _: change(img)


def _solarize_add(img: Image.Image, addition: float) -> Image.Image:
    """Brightens by `addition`, then inverts what is 128 or more."""
    brighter = (int(min(value + addition, 255)) for value in range(256))
    return img.point([255 - value if value >= 128 else value for value in brighter] * len(img.getbands()))


def _hole(img: Image.Image, side: float) -> Image.Image:
    """Covers a square of `side` pixels around a centre that is uniform from 1 to the image's size."""
    width, height = img.size
    x, y = (size + (1 - size) * np.random.random_sample() for size in img.size)     # np.random.uniform(size) of Dassl
    x, y = int(max(0, x - side / 2)), int(max(0, y - side / 2))
    img = img.copy()
    ImageDraw.Draw(img).rectangle((x, y, min(width, x + side), min(height, y + side)), GREY)
    return img


AUTOCONTRAST, EQUALIZE, INVERT = map(_plain, (ImageOps.autocontrast, ImageOps.equalize, ImageOps.invert))
IDENTITY = _plain(lambda img: img)
COLOR, CONTRAST, BRIGHTNESS, SHARPNESS = map(
    _enhance, (ImageEnhance.Color, ImageEnhance.Contrast, ImageEnhance.Brightness, ImageEnhance.Sharpness))
ROTATE = _either_sign(lambda img, degrees: img.rotate(degrees))
SHEAR_X, SHEAR_Y = _affine(lambda img, v: (1, v, 0, 0, 1, 0)), _affine(lambda img, v: (1, 0, 0, v, 1, 0))
MOVE_X, MOVE_Y = _affine(lambda img, v: (1, 0, v, 0, 1, 0)), _affine(lambda img, v: (1, 0, 0, 0, 1, v))     # pixels
SHIFT_X = _affine(lambda img, v: (1, 0, v * img.width, 0, 1, 0))                                            # shares
SHIFT_Y = _affine(lambda img, v: (1, 0, 0, 0, 1, v * img.height))


def _posterize(img: Image.Image, bits: float) -> Image.Image:
    return ImageOps.posterize(img, int(bits))


RANDAUGMENT: list[tuple[Operation, float, float]] = [           # operation, strength at 0, strength at 30
    (AUTOCONTRAST, 0, 1), (EQUALIZE, 0, 1), (INVERT, 0, 1), (ROTATE, 0, 30), (_posterize, 4, 8),
    (ImageOps.solarize, 0, 256), (_solarize_add, 0, 110), (COLOR, 0.1, 1.9), (CONTRAST, 0.1, 1.9),
    (BRIGHTNESS, 0.1, 1.9), (SHARPNESS, 0.1, 1.9), (SHEAR_X, 0, 0.3), (SHEAR_Y, 0, 0.3), (_hole, 0, 40),
    (MOVE_X, 0, 100), (MOVE_Y, 0, 100)]

RANDAUGMENT2: list[tuple[Operation, float, float]] = [
    (AUTOCONTRAST, 0, 1), (BRIGHTNESS, 0.1, 1.9), (COLOR, 0.1, 1.9), (CONTRAST, 0.1, 1.9), (EQUALIZE, 0, 1),
    (IDENTITY, 0, 1), (INVERT, 0, 1), (_posterize, 4, 8), (ROTATE, -30, 30), (SHARPNESS, 0.1, 1.9),
    (SHEAR_X, -0.3, 0.3), (SHEAR_Y, -0.3, 0.3), (ImageOps.solarize, 0, 256), (SHIFT_X, -0.3, 0.3),
    (SHIFT_Y, -0.3, 0.3)]

_DIMMER = dict.fromkeys((BRIGHTNESS, COLOR, CONTRAST, SHARPNESS), (0.05, 0.95))
FIXMATCH = [(operation, *_DIMMER.get(operation, strengths)) for operation, *strengths in RANDAUGMENT2
            if operation is not INVERT]


class RandAugment:
    """`n` operations of one strength `m`, 0 to 30."""

    operations = RANDAUGMENT

    def __init__(self, n: int = 2, m: float = 10):
        if n < 1 or not 0 <= m <= 30:
            raise UserError(f"RandAugment takes n >= 1 operations of strength m in 0..30, got n={n}, m={m}. "
                            "Check INPUT.RANDAUGMENT_N and INPUT.RANDAUGMENT_M.")
        self.n, self.m = n, m

    def strength(self) -> float | None:
        """Share of the range, in [0, 1]; None leaves the operation out."""
        return self.m / 30

    def __call__(self, img: Image.Image) -> Image.Image:
        for operation, low, high in random.choices(self.operations, k=self.n):
            if (strength := self.strength()) is not None:
                img = operation(img, strength * (high - low) + low)
        return img

    def __repr__(self) -> str:
        return f"{type(self).__name__}(n={self.n}, m={self.m})"


class RandAugment2(RandAugment):
    """`n` operations, each applied with probability `p` and with a strength of its own."""

    operations = RANDAUGMENT2

    def __init__(self, n: int = 2, p: float = 0.6):
        super().__init__(n)
        self.p = p

    def strength(self) -> float | None:
        return None if random.random() > self.p else random.random()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(n={self.n}, p={self.p})"


class RandAugmentFixMatch(RandAugment):
    """`n` of FixMatch's operations, each with a strength of its own."""

    operations = FIXMATCH

    def __init__(self, n: int = 2):
        super().__init__(n)

    def strength(self) -> float | None:
        return random.random()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(n={self.n})"
