"""Losses of prompt-learning papers: functions of feature tensors that return a scalar."""
from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from clip import InputError


def inter_dispersion(text_features: Tensor, t: float = 2.0) -> Tensor:
    """Mean Gaussian similarity over all pairs of classes; small when classes spread out.

    Args:
        text_features: (C, D), unit norm, C >= 2.
        t: bandwidth; similarity is exp(-t * squared Euclidean distance).
    Returns:
        () in (0, 1].
    Raises:
        InputError: fewer than two classes.
    Source: DAPT (Cho et al., ICCV 2023), inter-dispersion loss; authors' code trainers/dapt.py:389. A plain mean,
    without the logarithm of Wang and Isola's uniformity.
    """
    if len(text_features) < 2:
        raise InputError("The inter-dispersion loss spreads classes apart and needs at least 2; got "
                         f"{len(text_features)}.")
    w, C = text_features.float(), len(text_features)
    norms = w.square().sum(dim=1)                                                   # (C,)
    squared = (norms[:, None] + norms - 2 * w @ w.t()).clamp(min=0)                 # (C, C)
    return squared.mul(-t).exp().triu(diagonal=1).sum() / (C * (C - 1) / 2)         # each pair once


def intra_dispersion(image_features: Tensor, prototypes: Tensor) -> Tensor:
    """Mean squared distance per coordinate between images and the prototypes of their classes.

    Args:
        image_features: (B, D), unit norm.
        prototypes: (B, D), row b belongs to image b; means of unit-norm features, so at most unit norm.
    Returns:
        () in [0, 4 / D].
    Source: DAPT (Cho et al., ICCV 2023), intra-dispersion loss; authors' code trainers/dapt.py:386. `mse_loss` averages
    over B and D, and the published weights are for that.
    """
    return F.mse_loss(image_features.float(), prototypes.float())


def dispersion(text_features: Tensor) -> Tensor:
    """(..., C, D) -> (...): mean Euclidean distance of the classes' features from their mean.

    Source: C-TPT (Yoon et al., ICLR 2024), average text feature dispersion (ATFD).
    """
    return (text_features - text_features.mean(dim=-2, keepdim=True)).norm(dim=-1).mean(dim=-1)
