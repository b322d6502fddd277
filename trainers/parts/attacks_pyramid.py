"""The attack of Pyramid AT: one perturbation of cells at each of several scales, with a multiplier for each.

Source: Pyramid Adversarial Training Improves ViT Performance (Herrmann et al., CVPR 2022); google-research/scenic,
projects/adversarialtraining/attacks (commit 03c3032). As in that code:
- It starts from zero, and lowers the loss of a random other label; without `targets` it raises the label's own.
- A cell's number is cut to +-eps at each scale, before its multiplier: the whole change may be far larger than eps.
- The image is cut to its range after each scale, coarse ones first.
- The authors' images are in [-1, 1], so their eps 6/255 and step 1/255 are 3/255 and 0.5/255 of ours in [0, 1].
"""
from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from clip import InputError
from trainers.parts.attacks import LogitsOf, Loss, check_attack

SCALES, MULTIPLIERS = (32, 16, 1), (20.0, 10.0, 1.0)


def pyramid(logits_of: LogitsOf, images: Tensor, labels: Tensor, eps: float, step_size: float, steps: int,
            scales: Sequence[int] = SCALES, multipliers: Sequence[float] = MULTIPLIERS, *,
            targets: Tensor | None = None, loss: Loss = F.cross_entropy) -> Tensor:
    """A perturbation that is the sum of cells at several scales. No gradient reaches any parameter.

    Args:
        logits_of: images in [0, 1] to logits (B, C); drops the same units at each call, see `same_draws`.
        images: (B, 3, H, W) in [0, 1]. labels: (B,).
        eps: largest number of a cell, before the multiplier of its scale. step_size, steps: of all scales.
        scales: side of a cell in pixels, for each scale; a cell at the edge may be smaller.
        targets: (B,) labels to be reached; None: `labels` are to be avoided.
    Returns:
        (B, 3, H, W); `images + it` is inside [0, 1].
    Raises:
        InputError: as `trainers.parts.attacks.pgd`; scales or multipliers that are none.
    """
    check_attack(images, eps, "linf", steps, step_size)
    if not scales or len(scales) != len(multipliers) or min(scales) < 1 or min(multipliers) <= 0:
        raise InputError("A pyramid has a cell size of at least 1 pixel and a multiplier above 0 for each scale, got "
                         f"sizes {tuple(scales)} and multipliers {tuple(multipliers)}.")
    H, W = images.shape[-2:]
    cells = [images.new_zeros(len(images), 3, -(-H // s), -(-W // s)) for s in scales]
    sign, goal = (1, labels) if targets is None else (-1, targets)
    for _ in range(steps):
        with torch.enable_grad():
            levels = [level.detach().requires_grad_() for level in cells]
            value = loss(logits_of(_added(images, levels, scales, multipliers)), goal)
            found = torch.autograd.grad(value.sum(), levels, allow_unused=True) if value.requires_grad else [None]
        if found[0] is None:
            raise InputError("This model gives no gradient to its images, so it cannot be attacked by gradients.")
        cells = [(level.detach() + sign * step_size * gradient.sign()).clamp(-eps, eps)
                 for level, gradient in zip(levels, found, strict=True)]
    return _added(images, cells, scales, multipliers) - images


def _added(images: Tensor, cells: Sequence[Tensor], scales: Sequence[int], multipliers: Sequence[float]) -> Tensor:
    H, W = images.shape[-2:]
    for level, scale, multiplier in zip(cells, scales, multipliers, strict=True):
        whole = level.repeat_interleave(scale, dim=-2)[..., :H, :].repeat_interleave(scale, dim=-1)[..., :W]
        images = (images + multiplier * whole).clamp(0, 1)
    return images


def other_labels(labels: Tensor, classes: int) -> Tensor:
    """(B,) random labels, none of them the image's own; drawn with torch's global stream.

    The authors draw among all labels, so that of C classes one image in C has its own as its target.
    """
    if classes < 2:
        raise InputError(f"Another label takes at least 2 classes, got {classes}.")
    shift = 1 + (torch.rand_like(labels, dtype=torch.float64) * (classes - 1)).long()
    return (labels + shift) % classes


def same_draws(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`function` with the draws of torch's global stream that it has now at each call: one mask of dropout for all.

    The stream then is behind the draws of one call, however many there were.
    """
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    state, cuda = torch.get_rng_state(), [torch.cuda.get_rng_state(d) for d in devices]

    def again(*args, **kwargs) -> Tensor:
        torch.set_rng_state(state)
        for device, value in zip(devices, cuda, strict=True):
            torch.cuda.set_rng_state(value, device)
        return function(*args, **kwargs)

    return again
