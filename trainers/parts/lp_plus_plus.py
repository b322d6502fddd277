"""LP++: a linear probe whose start and step sizes are computed from the features, without a rate to choose.

Source: LP++ (Huang et al., CVPR 2024), authors' code f81054f, methods/linear_probe_p2.py and methods/utils.py. What is
easily missed: weights begin as sums over a class's images, not means; the texts' factors step in every tenth step, by
the sum of all gradients since the start, which are never set to zero.
"""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from clip import FrozenCLIP
from trainers.parts.feature_heads import BlendHead
from trainers.parts.prototypes import mean_of_each


@dataclass(frozen=True)
class Start:
    """Attributes: weight (C, D); text_weight, of every class; rate and text_rate, step sizes."""

    weight: Tensor
    text_weight: float
    rate: float
    text_rate: float


def start_of(features: Tensor, labels: Tensor, text_features: Tensor) -> Start:
    """Args:
        features: (N, D), unit norm; labels: (N,) in [0, C). text_features: (C, D), unit norm.
    Raises:
        InputError: a class without an image.
    """
    C, N = len(text_features), len(features)
    weight = torch.zeros_like(text_features).index_add_(0, labels, features)
    cosines = features @ text_features.t()                                        # (N, C)
    own = mean_of_each(cosines.gather(1, labels[:, None]), labels, C)             # (C, 1)
    rate = 4 * N / torch.linalg.eigvalsh((features.t() @ features).double())[-1].item()
    return Start(weight, 250 * own.mean().item(), rate, N / (4 * cosines.square().sum(0).max().item()))


def descend(head: BlendHead, start: Start, features: Tensor, labels: Tensor, text_features: Tensor, clip: FrozenCLIP,
            steps: int) -> Iterator[float]:
    """Optimise all of the head's parameters but its first bias; the loss of each step, after it."""
    with torch.no_grad():
        head.weight.copy_(start.weight)
        head.text_weight.fill_(start.text_weight)
    sgd = torch.optim.SGD([head.weight, head.bias], start.rate, momentum=0.9)
    total = torch.zeros_like(head.text_weight)
    for step in range(steps):
        with torch.enable_grad():
            loss = F.cross_entropy(head(features, text_features, clip), labels)
            *grads, text_grad = torch.autograd.grad(loss, (head.weight, head.bias, head.text_weight))
        total += text_grad
        head.weight.grad, head.bias.grad = grads
        sgd.step()
        if (step + 1) % 10 == 0:
            head.text_weight.data.sub_(start.text_rate * total)
        yield loss.item()
    head.weight.grad = head.bias.grad = None
