"""RandAugment and two relatives on PIL images, drawing from torch's stream.

Source: RandAugment (Cubuk et al., 2020), FixMatch (Sohn et al., 2020); strengths as in Dassl 0.6.3.
"""
from __future__ import annotations

from collections.abc import Callable

import torch
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from dassl.utils.errors import UserError

GREY = (125, 123, 114)      # ImageNet's mean colour, which fills a hole
Operation = Callable[[Image.Image, float], Image.Image]


def _draw() -> float:
    return float(torch.rand(()))


def _affine(img: Image.Image, *matrix: float) -> Image.Image:
    return img.transform(img.size, Image.Transform.AFFINE, matrix)


def _either_sign(operation: Operation) -> Operation:
    """`operation` with the sign of its strength drawn."""
    return lambda img, v: operation(img, v if _draw() < 0.5 else -v)


def _enhance(kind: type) -> Operation:
    return lambda img, v: kind(img).enhance(v)


def _shear_x(img: Image.Image, v: float) -> Image.Image:
    return _affine(img, 1, v, 0, 0, 1, 0)


def _shear_y(img: Image.Image, v: float) -> Image.Image:
    return _affine(img, 1, 0, 0, v, 1, 0)


def _move_x(img: Image.Image, pixels: float) -> Image.Image:
    return _affine(img, 1, 0, pixels, 0, 1, 0)


def _move_y(img: Image.Image, pixels: float) -> Image.Image:
    return _affine(img, 1, 0, 0, 0, 1, pixels)


def _rotate(img: Image.Image, degrees: float) -> Image.Image:
    return img.rotate(degrees)


def _autocontrast(img: Image.Image, _: float) -> Image.Image:
    return ImageOps.autocontrast(img)


def _equalize(img: Image.Image, _: float) -> Image.Image:
    return ImageOps.equalize(img)


def _invert(img: Image.Image, _: float) -> Image.Image:
    return ImageOps.invert(img)


def _identity(img: Image.Image, _: float) -> Image.Image:
    return img


def _posterize(img: Image.Image, bits: float) -> Image.Image:
    return ImageOps.posterize(img, max(1, int(bits)))


def _solarize(img: Image.Image, threshold: float) -> Image.Image:
    return ImageOps.solarize(img, threshold)


def _solarize_add(img: Image.Image, addition: float) -> Image.Image:
    """Brightens the dark half of the range by `addition`."""
    return img.point([min(255, i + int(addition)) if i < 128 else i for i in range(256)] * len(img.getbands()))


def _hole(img: Image.Image, side: float) -> Image.Image:
    """Covers a square of `side` pixels around a uniform centre."""
    width, height = img.size
    x, y = max(0, int(_draw() * width - side / 2)), max(0, int(_draw() * height - side / 2))
    img = img.copy()
    ImageDraw.Draw(img).rectangle((x, y, min(width, x + side), min(height, y + side)), GREY)
    return img


RANDAUGMENT: list[tuple[Operation, float, float]] = [           # operation, strength at 0, strength at 30
    (_autocontrast, 0, 1), (_equalize, 0, 1), (_invert, 0, 1), (_either_sign(_rotate), 0, 30), (_posterize, 0, 4),
    (_solarize, 0, 256), (_solarize_add, 0, 110), (_enhance(ImageEnhance.Color), 0.1, 1.9),
    (_enhance(ImageEnhance.Contrast), 0.1, 1.9), (_enhance(ImageEnhance.Brightness), 0.1, 1.9),
    (_enhance(ImageEnhance.Sharpness), 0.1, 1.9), (_either_sign(_shear_x), 0, 0.3), (_either_sign(_shear_y), 0, 0.3),
    (_hole, 0, 40), (_either_sign(_move_x), 0, 100), (_either_sign(_move_y), 0, 100)]

FIXMATCH: list[tuple[Operation, float, float]] = [
    (_autocontrast, 0, 1), (_enhance(ImageEnhance.Brightness), 0.05, 0.95), (_enhance(ImageEnhance.Color), 0.05, 0.95),
    (_enhance(ImageEnhance.Contrast), 0.05, 0.95), (_equalize, 0, 1), (_identity, 0, 1), (_posterize, 4, 8),
    (_rotate, -30, 30), (_enhance(ImageEnhance.Sharpness), 0.05, 0.95), (_shear_x, -0.3, 0.3), (_shear_y, -0.3, 0.3),
    (_solarize, 0, 256),
    (lambda img, v: _move_x(img, v * img.size[0]), -0.3, 0.3),
    (lambda img, v: _move_y(img, v * img.size[1]), -0.3, 0.3)]


class RandAugment:
    """`n` operations of one strength `m`, 0 to 30."""

    operations = RANDAUGMENT

    def __init__(self, n: int = 2, m: float = 10):
        if n < 1 or not 0 <= m <= 30:
            raise UserError(f"RandAugment takes n >= 1 operations of strength m in 0..30; got n={n}, m={m}. "
                            "Check INPUT.RANDAUGMENT_N and INPUT.RANDAUGMENT_M.")
        self.n, self.m = n, m

    def strength(self) -> float | None:
        """Share of the range, in [0, 1]; None leaves the operation out."""
        return self.m / 30

    def __call__(self, img: Image.Image) -> Image.Image:
        for index in torch.randint(len(self.operations), (self.n,)).tolist():
            operation, low, high = self.operations[index]
            if (strength := self.strength()) is not None:
                img = operation(img, low + strength * (high - low))
        return img

    def __repr__(self) -> str:
        return f"{type(self).__name__}(n={self.n}, m={self.m})"


class RandAugment2(RandAugment):
    """`n` operations, each applied with probability `p` and with a strength of its own."""

    def __init__(self, n: int = 2, p: float = 0.6):
        super().__init__(n)
        self.p = p

    def strength(self) -> float | None:
        return _draw() if _draw() <= self.p else None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(n={self.n}, p={self.p})"


class RandAugmentFixMatch(RandAugment):
    """`n` of FixMatch's operations, each with a strength of its own."""

    operations = FIXMATCH

    def __init__(self, n: int = 2):
        super().__init__(n)

    def strength(self) -> float | None:
        return _draw()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(n={self.n})"
