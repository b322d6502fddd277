"""torchvision's transforms of these names, pixel for pixel and draw for draw, on PIL images; batches in one pass.

torchvision itself takes seconds to import. A step that draws takes a generator, so that several threads can draw.
Source: torchvision 0.20 to 0.29, transforms/transforms.py and _functional_pil.py; compared in tests/engine.
"""
from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Generator, Tensor

from dassl.utils.errors import UserError

BILINEAR = Image.Resampling.BILINEAR


def _integer(stop: int, generator: Generator | None) -> int:
    """Uniform in 0 .. stop - 1."""
    return int(torch.randint(0, stop, (1,), generator=generator))


class Geometric:
    """PIL image -> PIL image; the argument stays as it is. `generator` None draws from torch's global stream."""

    def __call__(self, image: Image.Image, generator: Generator | None = None) -> Image.Image:
        raise TypeError(f"{type(self).__name__} does not say what it does with an image.")


class Resize(Geometric):
    """To (height, width), or the short side to `size` and the other in proportion."""

    def __init__(self, size: int | Sequence[int], interpolation: int = BILINEAR):
        self.size, self.interpolation = size, interpolation

    def __call__(self, image: Image.Image, generator: Generator | None = None) -> Image.Image:
        width, height = image.size
        if not isinstance(self.size, int):
            height, width = self.size
        elif width <= height:
            width, height = self.size, int(self.size * height / width)
        else:
            width, height = int(self.size * width / height), self.size
        return image if image.size == (width, height) else image.resize((width, height), self.interpolation)


class CenterCrop(Geometric):
    """The middle (height, width); a smaller image gets a black frame first."""

    def __init__(self, size: Sequence[int]):
        self.size = tuple(size)

    def __call__(self, image: Image.Image, generator: Generator | None = None) -> Image.Image:
        (crop_height, crop_width), (width, height) = self.size, image.size
        if crop_width > width or crop_height > height:
            x, y = max(crop_width - width, 0), max(crop_height - height, 0)
            image = ImageOps.expand(image, (x // 2, y // 2, (x + 1) // 2, (y + 1) // 2))
            width, height = image.size
        left, top = round((width - crop_width) / 2), round((height - crop_height) / 2)
        return image.crop((left, top, left + crop_width, top + crop_height))


class RandomCrop(Geometric):
    """A random (height, width) of the image with `padding` black pixels around it, more where it is still smaller."""

    def __init__(self, size: Sequence[int], padding: int = 0):
        self.size, self.padding = tuple(size), padding

    def __call__(self, image: Image.Image, generator: Generator | None = None) -> Image.Image:
        crop_height, crop_width = self.size
        image = ImageOps.expand(image, self.padding) if self.padding else image
        if image.size[0] < crop_width:
            image = ImageOps.expand(image, (crop_width - image.size[0], 0))
        if image.size[1] < crop_height:
            image = ImageOps.expand(image, (0, crop_height - image.size[1]))
        width, height = image.size
        top = left = 0
        if (width, height) != (crop_width, crop_height):
            top = _integer(height - crop_height + 1, generator)
            left = _integer(width - crop_width + 1, generator)
        return image.crop((left, top, left + crop_width, top + crop_height))


class RandomResizedCrop(Geometric):
    """A box of random area and shape, resized to (height, width).

    Args:
        scale: smallest and largest share of the image's area.
        ratio: smallest and largest width / height of the box.
    """

    def __init__(self, size: Sequence[int], scale: Sequence[float] = (0.08, 1.0),
                 ratio: Sequence[float] = (3 / 4, 4 / 3), interpolation: int = BILINEAR):
        self.size, self.scale, self.ratio, self.interpolation = tuple(size), tuple(scale), tuple(ratio), interpolation
        self._log_ratio = torch.log(torch.tensor(self.ratio)).tolist()

    def box(self, width: int, height: int, generator: Generator | None = None) -> tuple[int, int, int, int]:
        """left, top, right, bottom of the box: the first of ten draws that fits, else the largest middle one."""
        draw = torch.empty(1)
        for _ in range(10):
            area = height * width * draw.uniform_(*self.scale, generator=generator).item()
            shape = draw.uniform_(*self._log_ratio, generator=generator).exp_().item()
            w, h = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
            if 0 < w <= width and 0 < h <= height:
                top, left = _integer(height - h + 1, generator), _integer(width - w + 1, generator)
                return left, top, left + w, top + h
        w, h = width, height
        if width / height < min(self.ratio):
            h = round(w / min(self.ratio))
        elif width / height > max(self.ratio):
            w = round(h * max(self.ratio))
        left, top = (width - w) // 2, (height - h) // 2
        return left, top, left + w, top + h

    def __call__(self, image: Image.Image, generator: Generator | None = None) -> Image.Image:
        image = image.crop(self.box(*image.size, generator))
        height, width = self.size
        return image if image.size == (width, height) else image.resize((width, height), self.interpolation)


class RandomHorizontalFlip(Geometric):
    """Left and right exchanged with probability p."""

    def __init__(self, p: float = 0.5):
        self.p = p

    def __call__(self, image: Image.Image, generator: Generator | None = None) -> Image.Image:
        flips = torch.rand(1, generator=generator).item() < self.p
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flips else image


class ToTensor:
    """RGB image -> (3, H, W) float32 in [0, 1]; grey ones have one channel."""

    def __call__(self, image: Image.Image) -> Tensor:
        pixels = np.asarray(image)
        return torch.from_numpy(_in_unit_range(pixels if pixels.ndim == 3 else pixels[..., None]))


class Normalize:
    """(pixel - mean) / std per channel, of tensors (3, H, W)."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        if not all(std):
            raise UserError(f"INPUT.PIXEL_STD divides the pixels, so none of it can be 0; it is {tuple(std)}.")
        self.mean, self.std = (np.array(v, dtype=np.float32).reshape(-1, 1, 1) for v in (mean, std))

    def __call__(self, image: Tensor) -> Tensor:
        return torch.from_numpy((image.numpy() - self.mean) / self.std)


def _in_unit_range(pixels: np.ndarray) -> np.ndarray:
    """(..., H, W, 3) uint8 -> (..., 3, H, W) float32 in [0, 1]."""
    floats = np.moveaxis(pixels, -1, -3).astype(np.float32, order="C")
    floats /= np.float32(255)
    return floats


class Compose:
    """Steps one after the other."""

    def __init__(self, transforms: Sequence):
        self.transforms = list(transforms)

    def __call__(self, image: Image.Image) -> Tensor:
        for step in self.transforms:
            image = step(image)
        return image

    def __repr__(self) -> str:
        return f"Compose({', '.join(type(step).__name__ for step in self.transforms)})"


class Batched:
    """What a Compose does, for many images: geometry image by image, and the arithmetic for all of them at once.

    Geometry draws from a generator only, so any thread can do it; the arithmetic is numpy's, in the thread that asks.
    """

    def __init__(self, geometric: Sequence[Geometric], normalize: Sequence[Normalize]):
        self._geometric, self._normalize = geometric, normalize

    def geometry(self, image: Image.Image, generator: Generator) -> np.ndarray:
        """PIL image -> (H, W, 3) uint8."""
        for step in self._geometric:
            image = step(image, generator)
        return np.asarray(image)

    def finish(self, pixels: Sequence[np.ndarray]) -> Tensor:
        """B arrays (H, W, 3) uint8 -> (B, 3, H, W) float32."""
        floats = _in_unit_range(np.stack(pixels))
        for step in self._normalize:
            floats -= step.mean
            floats /= step.std
        return torch.from_numpy(floats)


def batched(transform) -> Batched | None:
    """The same transform for batches, or None where it has steps that are not of this file."""
    steps = transform.transforms if type(transform) is Compose else []
    tensor = next((i for i, step in enumerate(steps) if type(step) is ToTensor), None)
    if tensor is None:
        return None
    geometric, normalize = steps[:tensor], steps[tensor + 1:]
    fits = all(isinstance(s, Geometric) for s in geometric) and all(type(s) is Normalize for s in normalize)
    return Batched(geometric, normalize) if fits else None
