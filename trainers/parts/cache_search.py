"""Search of a cache's alpha and beta on labelled features.

Source: Tip-Adapter (Zhang et al., ECCV 2022), authors' code d0e2d6f, utils.py search_hp: each begins at 0.1 and leaves
its largest value out, beta is the outer loop, and only a better accuracy replaces the best one.
"""
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from clip import FrozenCLIP
from trainers.parts.heads import CacheHead

STEPS = 200, 20                     # of beta and of alpha
_MOST = 2 ** 23                     # logits at once


@dataclass(frozen=True)
class Found:
    """Attributes: beta, alpha; accuracy, percent; grid (200, 20), percent, of all of `betas` and `alphas`."""

    beta: float
    alpha: float
    accuracy: float
    grid: Tensor
    betas: list[float]
    alphas: list[float]


def values(largest: float, steps: int) -> list[float]:
    return [i * (largest - 0.1) / steps + 0.1 for i in range(steps)]


@torch.no_grad()
def search(head: CacheHead, image_features: Tensor, labels: Tensor, text_features: Tensor, clip: FrozenCLIP,
           beta_max: float, alpha_max: float) -> Found:
    """Sets the head's alpha and beta to the first of the best on the grid.

    Args:
        image_features: (N, D), unit norm; labels: (N,). text_features: (C, D), unit norm.
    """
    betas, alphas = values(beta_max, STEPS[0]), values(alpha_max, STEPS[1])
    weights = torch.tensor(alphas, device=labels.device)[:, None, None]                       # (20, 1, 1)
    right = torch.zeros(STEPS, dtype=torch.int64, device=labels.device)
    rows = max(1, _MOST // (len(alphas) * max(head.values.shape)))
    for features, label in zip(image_features.split(rows), labels.split(rows), strict=True):
        cosines = head.cosines(features, text_features, clip)                                 # (n, C)
        for i, beta in enumerate(betas):
            logits = cosines + weights * head.votes(features, beta)                           # (20, n, C)
            right[i] += logits.argmax(dim=-1).eq(label).sum(dim=1)
    beta, alpha = divmod(int(right.flatten().argmax()), len(alphas))                          # the first of equals
    head.beta.fill_(betas[beta])
    head.alpha.fill_(alphas[alpha])
    grid = 100 * right.double().cpu() / len(labels)
    return Found(betas[beta], alphas[alpha], grid[beta, alpha].item(), grid, betas, alphas)
