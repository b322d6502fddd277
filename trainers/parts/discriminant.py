"""Gaussian discriminant analysis: a linear classifier from class means and one covariance, in closed form.

Source: A Hard-to-Beat Baseline for Training-Free CLIP-based Adaptation (Wang et al., ICLR 2024), authors' code 560fe21,
main_few_shots.py run. What is easily missed: the covariance's n - 1 is multiplied back, while the trace that shrinks it
is that of the covariance; classes count alike, however many images they have.
"""
from __future__ import annotations

import math

import torch
from torch import Tensor

from clip import InputError
from trainers.parts.prototypes import mean_of_each


def discriminant(features: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Weights (C, D) and bias (C,) whose scores are log probabilities up to a constant of the image.

    Args:
        features: (N, D), several views of an image each counted. labels: (N,) in [0, C).
    Raises:
        InputError: a class without an image, or fewer than two samples.
    """
    if len(features) < 2:
        raise InputError("A covariance needs at least two samples, got 1.")
    x = features.double()
    N, D = x.shape
    means = mean_of_each(x, labels, num_classes)                                  # (C, D)
    covariance = torch.cov((x - means[labels]).t())                               # (D, D)
    ridge = covariance.trace() * torch.eye(D, dtype=x.dtype, device=x.device)
    inverse = D * torch.linalg.pinv((N - 1) * covariance + ridge, hermitian=True)
    weight = means @ inverse
    bias = math.log(1 / num_classes) - (weight * means).sum(1) / 2
    return weight.to(features.dtype), bias.to(features.dtype)
