"""Pixels added to every image of a stream, learned from it: some for the present domain, some for all domains.

Source: Decorate the Newcomers: Visual Domain Prompt for Continual Test Time Adaptation (Gan et al., AAAI 2023,
2212.04145): two prompts that are added, a teacher that is the moving average of the student, and homeostasis, which
keeps pixels that a new domain pulls at from moving in the prompt for all domains. No code is published.
"""
from __future__ import annotations

import torch
from torch import Tensor


class DomainPixels:
    """Attributes:
        own, shared: (3, S, S), for the present domain and for all; zero at first.
        teacher: (2, 3, S, S), the moving averages of both.
        pull: (3, S, S), the moving average of the squared gradient of `shared`, relative to its mean over pixels.
    Args:
        size: S, side of the images. rate: of a step of gradient descent; own, shared.
        decay: of the moving averages, in [0, 1).
        homeostasis: weight of pull * (shared - teacher's)^2 in the loss of `shared`.
        device: of the pixels.
    """

    def __init__(self, size: int, rate: float, decay: float, homeostasis: float, device: torch.device):
        self.size, self.rate, self.decay, self.homeostasis, self.device = size, rate, decay, homeostasis, device
        self.reset()

    def reset(self) -> None:
        self.own, self.shared, self.pull = torch.zeros(3, 3, self.size, self.size, device=self.device)
        self.teacher = torch.zeros(2, 3, self.size, self.size, device=self.device)

    def state_dict(self) -> dict:
        return {name: getattr(self, name).clone() for name in ("own", "shared", "pull", "teacher")}

    def load_state_dict(self, state: dict) -> None:
        for name, value in state.items():
            setattr(self, name, value.to(self.device).clone())

    def step(self, gradient: Tensor) -> None:
        """One step of the student, from the gradient (3, S, S) of the loss at what is added, then the teacher's."""
        pull = gradient.square()
        pull = pull / pull.mean().clamp(min=1e-20)
        self.pull = self.decay * self.pull + (1 - self.decay) * pull
        back = 2 * self.homeostasis * self.pull * (self.shared - self.teacher[1])
        self.own = self.own - self.rate * gradient
        # A step towards the teacher never passes it.
        self.shared = self.shared - self.rate * gradient - (self.rate * back).clamp(
            -(self.shared - self.teacher[1]).abs(), (self.shared - self.teacher[1]).abs())
        self.teacher = self.decay * self.teacher + (1 - self.decay) * torch.stack([self.own, self.shared])
