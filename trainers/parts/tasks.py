"""Several tasks in one model: the classes of other tasks do not compete."""
from __future__ import annotations

import torch
from torch import Tensor


def only_classes(logits: Tensor, allowed: Tensor) -> Tensor:
    """Logits (B, C), minus infinity where `allowed` (C,) or (B, C) is False: softmax gives those classes nothing."""
    return logits.masked_fill(~allowed, -torch.inf)


def of_own_task(task_of_class: Tensor, tasks: Tensor) -> Tensor:
    """(B, C) bool: whether a class is of the image's own task."""
    return task_of_class == tasks[:, None]


def only_own_task(logits: Tensor, task_of_class: Tensor, tasks: Tensor) -> Tensor:
    """Logits (B, C) among the classes of each image's own task.

    Args:
        task_of_class: (C,) int64. tasks: (B,) int64, of the images.
    """
    return only_classes(logits, of_own_task(task_of_class, tasks))
