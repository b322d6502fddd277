"""Gradients of two losses that may pull in opposite directions.

Source: ProGrad (Zhu et al., ICCV 2023), equation 4; the authors' engine, prograd_backward_and_update.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def without_conflict(gradient: Tensor, guide: Tensor, share: float = 1.0) -> Tensor:
    """A gradient without what it undoes of a guide's: its part against the guide's direction is taken out.

    Args:
        gradient: of one parameter. guide: of the same shape, from another loss; only its direction counts.
        share: of that part, from 0 to 1 in the paper.
    Returns:
        The gradient itself where both agree, and where the guide vanishes, which has no direction; NaN where one of
        them is NaN.
    """
    direction = F.normalize(guide.double().flatten(), dim=0, eps=torch.finfo(torch.float64).tiny)
    against = (gradient.double().flatten() @ direction).clamp(max=0)                          # ()
    return gradient - (share * against * direction).view_as(gradient).to(gradient.dtype)
