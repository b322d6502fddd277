"""How sure a classifier is of several views of an image.

Source: TPT (Shu et al., NeurIPS 2022), tpt_classification.py select_confident_samples and avg_entropy.
"""
from __future__ import annotations

import math

import torch
from torch import Tensor

from clip import InputError


def most_confident(logits: Tensor, share: float) -> Tensor:
    """Which views have the lowest entropy.

    Args:
        logits: (B, V, C).
        share: of the views, in (0, 1]; rounded down.
    Returns:
        (B, k) int64 in [0, V), the most confident first.
    Raises:
        InputError: the share of V views is less than one; scores that are not finite.
    """
    k = int(logits.shape[1] * share)
    if k < 1:
        raise InputError(f"A share of {share} of {logits.shape[1]} views is less than one view. Use at least "
                         f"{math.ceil(1 / share) if share > 0 else 1} views or a larger share.")
    return entropy(logits).argsort(dim=1, stable=True)[:, :k]


def entropy(logits: Tensor) -> Tensor:
    """(..., C) -> (...): in nats.

    Raises:
        InputError: scores that are not finite.
    """
    logp = logits.log_softmax(dim=-1)
    found = -(logp.exp() * logp).sum(-1)
    if not (finite := found.isfinite()).all():
        raise InputError(f"{int((~finite).sum())} of {finite.numel()} images or views have scores that are not finite, "
                         "so nothing says how sure they are. What was loaded or learned is not finite, or overflows in "
                         "half precision: compute in fp32, or take an earlier checkpoint.")
    return found


def marginal_entropy(logits: Tensor) -> Tensor:
    """(B, V, C) -> (B,): entropy of the mean probability of V views, in nats, computed in log space."""
    logp = logits.log_softmax(dim=-1)
    mean = (logp.logsumexp(dim=1) - math.log(logits.shape[1])).clamp(min=torch.finfo(logp.dtype).min)     # (B, C)
    return -(mean * mean.exp()).sum(-1)
