"""Pairwise distances between two sets of features."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def compute_distance_matrix(input1: Tensor, input2: Tensor, metric: str = "euclidean") -> Tensor:
    """(M, D), (N, D) -> (M, N). `metric` is "euclidean" (squared, as in Dassl) or "cosine"."""
    if input1.ndim != 2 or input2.ndim != 2 or input1.shape[1] != input2.shape[1]:
        raise ValueError(f"Distances need (M, D) and (N, D), got {tuple(input1.shape)} and {tuple(input2.shape)}.")
    if metric == "euclidean":
        return euclidean_squared_distance(input1, input2)
    if metric == "cosine":
        return cosine_distance(input1, input2)
    raise ValueError(f'metric must be "euclidean" or "cosine", got {metric!r}.')


def euclidean_squared_distance(input1: Tensor, input2: Tensor) -> Tensor:
    """Squared Euclidean distances, (M, N)."""
    return torch.cdist(input1, input2).square()


def cosine_distance(input1: Tensor, input2: Tensor) -> Tensor:
    """1 - cosine, (M, N), in [0, 2]."""
    return 1 - F.normalize(input1, dim=1) @ F.normalize(input2, dim=1).t()
