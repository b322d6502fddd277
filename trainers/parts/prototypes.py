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
    counts = torch.zeros(num_classes, device=device)
    for images, labels in batches:
        labels = labels.to(device)
        sums.index_add_(0, labels, clip.encode_image(images.to(device)))
        counts.index_add_(0, labels, torch.ones_like(labels, dtype=counts.dtype))
    for found in (sums, counts) if add_up else ():
        add_up(found)
    if len(empty := (counts == 0).nonzero().flatten().tolist()):
        raise InputError(f"A prototype needs at least one training image of its class; classes {empty[:5]} have none "
                         f"({len(empty)} of {num_classes}).")
    return sums / counts[:, None]
