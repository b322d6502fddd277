"""Classifiers as functions of images alone, with everything that does not depend on the image computed before."""
from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from trainers.parts.linear_head import LinearHead


class PromptedGraph(nn.Module):
    """(B, 3, H, W) -> logits (B, C) of a `PromptedCLIP`, whose text tower is not needed any more."""

    @torch.no_grad()
    def __init__(self, model: PromptedCLIP):
        super().__init__()
        self.model, self.described = model, "bank" in model.prompt_learner
        if self.described:
            model.prompt_learner["bank"].fill()
        else:
            self.register_buffer("text", model.text_features().clone())           # (C, D)

    def forward(self, images: Tensor) -> Tensor:
        features, scale = self.model.image_features(images), self.model.clip.scale
        if self.described:
            return self.model.prompt_learner["bank"](features, scale)[0]
        return scale * features @ self.text.t()

    def used(self) -> Iterator[Tensor]:
        """The weights that the graph holds."""
        yield from self.model.clip.visual.parameters()


class LinearGraph(nn.Module):
    """(B, 3, H, W) -> scores (B, C) of a linear classifier."""

    def __init__(self, model: LinearHead):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images).logits

    def used(self) -> Iterator[Tensor]:
        """The weights that the graph holds."""
        yield from self.model.clip.visual.parameters()


GRAPHS = {PromptedCLIP: PromptedGraph, LinearHead: LinearGraph}
