"""Attacks on images in [0, 1], before the normalisation: usable in training and in evaluation.

Source: PGD (Madry et al., ICLR 2018), as TeCoA (Mao et al., ICLR 2023) runs it, attacks.py attack_pgd.
"""
from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from clip import InputError

NORMS = ("linf", "l2")


def pgd(logits_of: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, eps: float, step_size: float,
        steps: int, norm: str = "linf", start: Tensor | None = None,
        loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy) -> Tensor:
    """A perturbation that raises the loss, by projected gradient ascent. No gradient reaches any parameter.

    Args:
        logits_of: images in [0, 1] to logits (B, C); the whole model, its normalisation included.
        images: (B, 3, H, W) in [0, 1]. labels: (B,).
        eps: radius of the ball: largest change of a number ("linf"), or length of an image's change ("l2").
        start: (B, 3, H, W) first perturbation, drawn from U(-eps, eps) with torch's global stream by default.
    Returns:
        (B, 3, H, W) inside the ball, and `images + it` inside [0, 1].
    Raises:
        InputError: a negative radius or step size, less than one step, another norm.
    """
    if norm not in NORMS:
        raise InputError(f"A perturbation is bounded in {' or '.join(NORMS)}, got {norm!r}.")
    if eps < 0 or step_size < 0 or steps < 1:
        raise InputError("An attack needs a radius and a step size of at least 0 and at least 1 step, got eps "
                         f"{eps:g}, step size {step_size:g}, {steps} steps.")
    start = torch.empty_like(images).uniform_(-eps, eps) if start is None else start
    delta = _inside(start, images, eps, norm)
    for _ in range(steps):
        with torch.enable_grad():
            delta.requires_grad_()
            gradient, = torch.autograd.grad(loss(logits_of(images + delta), labels), delta)
        direction = gradient.sign() if norm == "linf" else gradient / (_lengths(gradient) + 1e-10)
        delta = _inside(delta.detach() + step_size * direction, images, eps, norm)
    return delta


def _inside(delta: Tensor, images: Tensor, eps: float, norm: str) -> Tensor:
    """The nearest perturbation in the ball, then cut so that the images stay in [0, 1]."""
    delta = delta.clamp(-eps, eps) if norm == "linf" else delta * (eps / _lengths(delta).clamp(min=1e-12)).clamp(max=1)
    return torch.maximum(torch.minimum(delta, 1 - images), -images)


def _lengths(x: Tensor) -> Tensor:
    """(B, ...) -> (B, 1, 1, 1)."""
    return x.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
