"""One vector per class: the mean of its training images' features, by CLIP without prompts.

Source: DAPT (Cho et al., ICCV 2023), authors' code trainers/dapt.py:69-147. The mean of unit-norm features is not
normalised again: the published accuracy depends on it.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from clip import FrozenCLIP, InputError


@torch.no_grad()
def class_prototypes(clip: FrozenCLIP, batches: Iterable[tuple[Tensor, Tensor]], num_classes: int,
                     add_up: Callable[[Tensor], object] | None = None) -> Tensor:
    """Mean feature per class.

    Args:
        batches: pairs of images (B, 3, H, W), normalised, and labels (B,) in [0, C).
        num_classes: C.
        add_up: adds, in place, what other processes found in their batches; None has no others.
    Returns:
        (C, D) float32 on CLIP's device; rows have norm at most 1.
    Raises:
        InputError: a class without an image.
    """
    device = clip.logit_scale.device
    sums = torch.zeros(num_classes, clip.embed_dim, device=device)
    counts = torch.zeros(num_classes, dtype=torch.int64, device=device)
    for images, labels in batches:
        labels = labels.to(device)
        sums.index_add_(0, labels, clip.encode_image(images.to(device)))
        counts += torch.bincount(labels, minlength=num_classes)
    for found in (sums, counts) if add_up else ():
        add_up(found)
    return sums / checked(counts, "A prototype")[:, None]


def mean_of_each(values: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """(C, D): the mean of each class's rows of (N, D).

    Raises:
        InputError: a class without a row.
    """
    counts = checked(torch.bincount(labels, minlength=num_classes), "A class's mean")
    return values.new_zeros(num_classes, values.shape[1]).index_add_(0, labels, values) / counts[:, None]


def checked(counts: Tensor, who: str) -> Tensor:
    """Images of each class (C,).

    Raises:
        InputError: a class has none.
    """
    if len(empty := (counts == 0).nonzero().flatten().tolist()):
        raise InputError(f"{who} needs at least one image of each class; classes {empty[:5]} have none "
                         f"({len(empty)} of {len(counts)}).")
    return counts
