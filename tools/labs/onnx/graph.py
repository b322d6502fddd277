"""A classifier as a function of images alone, with everything that does not depend on the image computed before."""
from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from trainers.parts.prompted_model import PromptedModel


class FixedGraph(nn.Module):
    """(B, 3, H, W) -> logits (B, C) of a `PromptedModel` that is not conditional; its text tower is not used any more.

    Args:
        images: (B, 3, H, W), any; what a head computes once is computed with them.
    """

    @torch.no_grad()
    def __init__(self, model: PromptedModel, images: Tensor):
        super().__init__()
        model(images)
        text = model.text_for_head()
        self.model = model
        model.fixed_text = None if text is None else text.clone()                 # (C, D), for images that ask it too

    def forward(self, images: Tensor) -> Tensor:
        head = self.model.head
        features = self.model.image_features(images, self.model.unit_norm)
        found = head(features, self.model.fixed_text, self.model.clip)
        return found[0] if isinstance(found, tuple) else found

    def used(self) -> Iterator[Tensor]:
        """The weights that the graph holds."""
        yield from self.model.clip.visual.parameters()
