"""What holds prototypes near the vectors that they began as.

Source: CLAP (Silva-Rodriguez et al., CVPR 2024), authors' code dbdf409, trainers/adapters.py zero_shot_constraint,
init_lagrangian_multipliers and outer_step.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from clip import InputError
from trainers.parts.prototypes import mean_of_each

DISTANCES = ("l2", "cosine")
STRENGTHS = ("zero-shot", "corrected", "constant", "balanced")


class Constraint:
    """Mean over classes of strength times distance.

    Args:
        logits, labels: (N, C) and (N,), zero-shot CLIP's on the training images.
        strength: "zero-shot", CLIP's mean probability of a class on its images; "corrected", the same with a mean of 1;
            "constant", its mean for every class; or "balanced", 1.
        distance: "l2", squared and of vectors that are not normalised, or "cosine", 1 minus the cosine.
    Attributes:
        strength: (C,). penalty: (C,), how fast `rise` raises it; 0 at first.
    Raises:
        InputError: another strength or distance; a class without an image.
    """

    def __init__(self, logits: Tensor, labels: Tensor, strength: str = "zero-shot", distance: str = "l2"):
        if strength not in STRENGTHS or distance not in DISTANCES:
            raise InputError(f"A constraint has one of the strengths {', '.join(STRENGTHS)} and one of the distances "
                             f"{', '.join(DISTANCES)}, got {strength!r} and {distance!r}.")
        C = logits.shape[1]
        right = logits.softmax(1).gather(1, labels[:, None])                      # (N, 1)
        self.distance, self.strength = distance, mean_of_each(right, labels, C).squeeze(1)
        if strength == "balanced":
            self.strength = torch.ones_like(self.strength)
        elif strength == "corrected":
            self.strength = self.strength / self.strength.mean()
        elif strength == "constant":
            self.strength = self.strength.mean().expand(C).clone()
        self.penalty = torch.zeros_like(self.strength)

    def __call__(self, prototypes: Tensor, start: Tensor) -> Tensor:
        """(C, D) and (C, D) -> ()."""
        away = (prototypes - start).square().sum(1) if self.distance == "l2" else \
            1 - F.cosine_similarity(prototypes, start, dim=1)
        return (self.strength * away).mean()

    @torch.no_grad()
    def rise(self, prototypes: Tensor, start: Tensor) -> None:
        """One outer step of the augmented Lagrangian: classes that moved are held harder, from the second step on."""
        away = (prototypes - start).square().sum(1)
        self.strength, self.penalty = (self.strength + self.penalty * away).clamp(min=0), away
