"""Small functions of adaptation, generalisation and semi-supervised methods."""
from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dassl.utils.errors import UserError


def sharpen_prob(p: Tensor, temperature: float = 2) -> Tensor:
    """(B, C) probabilities raised to `temperature` and normalised again: above 1 sharper, below 1 flatter."""
    p = p.pow(temperature)
    return p / p.sum(1, keepdim=True)


def reverse_index(data: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Both in reverse order."""
    return data.flip(0), label.flip(0)


def shuffle_index(data: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the same random order."""
    order = torch.randperm(len(data)).to(data.device)
    return data[order], label[order.to(label.device)]


def create_onehot(label: Tensor, num_classes: int) -> Tensor:
    """(B,) labels -> (B, num_classes) float32 on the CPU, whatever the device of the labels, as Dassl returns it."""
    return torch.zeros(len(label), num_classes).scatter(1, label.detach().cpu()[:, None], 1)


def sigmoid_rampup(current: float, rampup_length: float) -> float:
    """exp(-5 (1 - t)^2) for t = current / rampup_length, held within [0, 1]."""
    return math.exp(-5 * (1 - linear_rampup(current, rampup_length)) ** 2)


def linear_rampup(current: float, rampup_length: float) -> float:
    """current / rampup_length, held within [0, 1]."""
    if rampup_length <= 0:
        raise UserError(f"A ramp-up must take more than 0 steps, got {rampup_length}.")
    return min(max(current / rampup_length, 0.0), 1.0)


@torch.no_grad()
def ema_model_update(model: nn.Module, ema_model: nn.Module, alpha: float) -> None:
    """Every parameter of `ema_model` becomes alpha * itself + (1 - alpha) * that of `model`; buffers stay."""
    for average, latest in zip(ema_model.parameters(), model.parameters(), strict=True):
        average.mul_(alpha).add_(latest, alpha=1 - alpha)
