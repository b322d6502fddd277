"""INPUT.TRANSFORMS -> what turns a PIL image into a tensor, in Dassl's order whatever the order of the names."""
from __future__ import annotations

import logging
import random
import re
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dassl.compat.passed_on import passed_on
from dassl.utils.errors import UserError
from dassl.utils.registry import nearest

from .autoaugment import CIFAR10Policy, ImageNetPolicy, SVHNPolicy
from .randaugment import RandAugment, RandAugment2, RandAugmentFixMatch

logger = logging.getLogger(__name__)
_passed_on = passed_on(__name__)

_MODES = ("bilinear", "bicubic", "nearest")


def _torchvision():
    """torchvision's transforms, imported when a transform is built: they take seconds, and `--list` needs none."""
    from torchvision import transforms

    return transforms


def _mode(word: str):
    return _torchvision().InterpolationMode(word)


def __getattr__(name: str):
    if name == "INTERPOLATION_MODES":    # for public code that makes transforms of its own
        return {word: _mode(word) for word in _MODES}
    return _passed_on(name)


class Random2DTranslation:
    """With probability p resize to 9/8 of the size and crop at random, else resize only; drawn as Dassl 0.6.3 does."""

    def __init__(self, height: int, width: int, p: float = 0.5, interpolation=Image.Resampling.BILINEAR):
        self.height, self.width, self.p, self.interpolation = height, width, p, interpolation

    def __call__(self, image: Image.Image) -> Image.Image:
        F, size = _torchvision().functional, [self.height, self.width]
        if random.uniform(0, 1) > self.p:
            return F.resize(image, size, self.interpolation)
        larger = [round(side * 1.125) for side in size]
        left, top = (round(random.uniform(0, big - side)) for big, side in zip(larger[::-1], size[::-1]))
        return F.crop(F.resize(image, larger, self.interpolation), top, left, *size)


class Cutout:
    """Set `n_holes` squares of side `length` to 0 at random places of a tensor image (C, H, W)."""

    def __init__(self, n_holes: int = 1, length: int = 16):
        self.n_holes, self.length = n_holes, length

    def __call__(self, image: Tensor) -> Tensor:
        H, W = image.shape[1:]
        keep, half = torch.ones(H, W), self.length // 2
        for _ in range(self.n_holes):
            y, x = np.random.randint(H), np.random.randint(W)
            keep[max(y - half, 0):y + half, max(x - half, 0):x + half] = 0
        return image * keep


class GaussianNoise:
    """Add N(mean, std) noise to a tensor image with probability p."""

    def __init__(self, mean: float = 0.0, std: float = 0.15, p: float = 0.5):
        self.mean, self.std, self.p = mean, std, p

    def __call__(self, image: Tensor) -> Tensor:
        return image if random.uniform(0, 1) > self.p else image + (torch.randn(image.shape) * self.std + self.mean)


class InstanceNormalization:
    """Zero mean and unit deviation per channel of one tensor image."""

    def __init__(self, eps: float = 1e-8):
        self.eps = eps

    def __call__(self, image: Tensor) -> Tensor:
        mean, std = image.mean((1, 2), keepdim=True), image.std((1, 2), keepdim=True)
        return (image - mean) / (std + self.eps)


AVAI_CHOICES = ["random_flip", "random_resized_crop", "normalize", "instance_norm", "random_crop",
                "random_translation", "center_crop", "cutout", "imagenet_policy", "cifar10_policy", "svhn_policy",
                "randaugment", "randaugment_fixmatch", "randaugment2", "gaussian_noise", "colorjitter",
                "randomgrayscale", "gaussian_blur", "resize_short_side", "timm_randaugment", "random_erasing"]


def build_transform(cfg, is_train: bool = True, choices=None):
    """PIL image -> (3, H, W) float in [0, 1], normalised iff "normalize" is chosen; None with INPUT.NO_TRANSFORM.

    Args:
        is_train: with augmentation; else resize the short side, crop the centre.
        choices: names instead of INPUT.TRANSFORMS.
    Raises:
        UserError: an unknown name.
    """
    if cfg.INPUT.NO_TRANSFORM:
        logger.info("No transform is applied (INPUT.NO_TRANSFORM)")
        return None
    choices = tuple(cfg.INPUT.TRANSFORMS if choices is None else choices)
    for name in choices:
        if name not in AVAI_CHOICES:
            raise UserError(f"Unknown transform {name!r} in INPUT.TRANSFORMS.{nearest(name, AVAI_CHOICES)} There are "
                            f"{', '.join(AVAI_CHOICES)}.")
    if cfg.INPUT.INTERPOLATION not in _MODES:
        raise UserError(f"INPUT.INTERPOLATION must be one of {', '.join(_MODES)}, got {cfg.INPUT.INTERPOLATION!r}.")
    c, T, size = cfg.INPUT, _torchvision(), tuple(cfg.INPUT.SIZE)
    last = {"cutout": lambda: Cutout(c.CUTOUT_N, c.CUTOUT_LEN),
            "normalize": lambda: T.Normalize(list(c.PIXEL_MEAN), list(c.PIXEL_STD)),
            "gaussian_noise": lambda: GaussianNoise(c.GN_MEAN, c.GN_STD), "instance_norm": InstanceNormalization,
            "random_erasing": lambda: T.RandomErasing(c.ERASING_P, value="random")}
    if is_train:
        steps, chosen = _augmentations(c, choices), choices
    else:
        steps = [T.Resize(max(size), _mode(c.INTERPOLATION)), T.CenterCrop(size)]
        chosen = {"normalize", "instance_norm"}.intersection(choices)
    return T.Compose([*steps, T.ToTensor(), *(make() for name, make in last.items() if name in chosen)])


def _augmentations(c, choices) -> list:
    """Of the PIL image, in Dassl's order."""
    T, interpolation, size = _torchvision(), _mode(c.INTERPOLATION), tuple(c.SIZE)
    # The test transform crops the centre in any case; training alone only where it also resizes the short side.
    crops = {"random_crop", "random_resized_crop", *(["center_crop"] if "resize_short_side" in choices else [])}
    augment = {
        "random_translation": lambda: Random2DTranslation(*size),
        "random_crop": lambda: T.RandomCrop(size, c.CROP_PADDING, pad_if_needed=True),
        "random_resized_crop": lambda: T.RandomResizedCrop(size, tuple(c.RRCROP_SCALE), interpolation=interpolation),
        "random_flip": T.RandomHorizontalFlip,
        "imagenet_policy": ImageNetPolicy,
        "cifar10_policy": CIFAR10Policy,
        "svhn_policy": SVHNPolicy,
        "randaugment": lambda: RandAugment(c.RANDAUGMENT_N, c.RANDAUGMENT_M),
        "randaugment_fixmatch": lambda: RandAugmentFixMatch(c.RANDAUGMENT_N),
        "randaugment2": lambda: RandAugment2(c.RANDAUGMENT_N),
        "timm_randaugment": lambda: _timm_randaugment(c, interpolation),
        "colorjitter": lambda: T.ColorJitter(c.COLORJITTER_B, c.COLORJITTER_C, c.COLORJITTER_S, c.COLORJITTER_H),
        "randomgrayscale": lambda: T.RandomGrayscale(c.RGS_P),
        "gaussian_blur": lambda: T.RandomApply([T.GaussianBlur(c.GB_K)], p=c.GB_P),
    }
    steps = [T.Resize(max(size), interpolation)] if "resize_short_side" in choices else []    # as in testing
    steps += [] if crops & set(choices) else [T.Resize(size, interpolation)]
    steps += [T.CenterCrop(size)] if {"resize_short_side", "center_crop"} <= set(choices) else []
    return steps + [make() for name, make in augment.items() if name in choices]


def _timm_randaugment(c, interpolation):
    """timm's RandAugment, as its `create_transform` makes it; draws from the streams of Python and NumPy.

    Raises:
        UserError: words that timm does not know.
    """
    from timm.data.auto_augment import rand_augment_transform

    try:
        if not re.fullmatch(r"rand(-[a-z]+[\d.]+)+", c.TIMM_RANDAUGMENT):
            raise ValueError("timm passes over a word without a number")
        return rand_augment_transform(c.TIMM_RANDAUGMENT, {
            "translate_const": int(0.45 * min(c.SIZE)), "img_mean": tuple(round(255 * v) for v in c.PIXEL_MEAN),
            "interpolation": Image.Resampling[interpolation.name]})
    except (AssertionError, KeyError, ValueError) as error:
        raise UserError("INPUT.TIMM_RANDAUGMENT takes timm's words, such as rand-m9-mstd0.5-inc1 (strength 9, its "
                        f"deviation, more is stronger), got {c.TIMM_RANDAUGMENT!r}.") from error


def plain_transform(cfg):
    """Resize to INPUT.SIZE, both sides, without augmentation or crop: what "img0" is (DATALOADER.RETURN_IMG0)."""
    c, T = cfg.INPUT, _torchvision()
    steps = [T.Resize(tuple(c.SIZE), _mode(c.INTERPOLATION)), T.ToTensor()]
    return T.Compose([*steps, T.Normalize(list(c.PIXEL_MEAN), list(c.PIXEL_STD))] if "normalize" in c.TRANSFORMS
                     else steps)


def arithmetic_apart(transform) -> tuple[Callable, Callable] | None:
    """A transform that ends in ToTensor and Normalize as two: what it does before, and these two for many images.

    The second turns B PIL images into (B, 3, H, W), or a list where they differ in size; bit for bit the same numbers.
    None for any other transform.
    """
    T = _torchvision()
    steps = transform.transforms if type(transform) is T.Compose else []
    if [type(step) for step in steps[-2:]] != [T.ToTensor, T.Normalize]:
        return None
    *geometry, to_tensor, normalize = steps

    def finish(images: Sequence):
        if {(getattr(image, "mode", None), image.size) for image in images} != {("RGB", images[0].size)}:
            return [normalize(to_tensor(image)) for image in images]
        pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images]))            # (B, H, W, 3)
        floats = pixels.permute(0, 3, 1, 2).contiguous().float().div_(255)                      # (B, 3, H, W)
        return T.functional.normalize(floats, normalize.mean, normalize.std, inplace=True)

    return T.Compose(geometry), finish
