"""A linear classifier on frozen image features."""
from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from clip import FrozenCLIP
from trainers.parts.prompted_clip import Output


class LinearHead(nn.Module):
    """Scores W f + b of image features f, which are not normalised.

    Attributes:
        prompt_learner: the linear layer, weight (C, D) and bias (C,), zero at first.
    """

    def __init__(self, clip: FrozenCLIP, num_classes: int):
        super().__init__()
        self.clip, self.prompt_learner = clip, nn.Linear(clip.embed_dim, num_classes)
        nn.init.zeros_(self.prompt_learner.weight)
        nn.init.zeros_(self.prompt_learner.bias)

    def forward(self, images: Tensor) -> Output:
        """Images (B, 3, H, W), normalised, to logits (B, C)."""
        features = self.clip.encode_image(images, unit_norm=False)
        return Output(self.prompt_learner(features), F.normalize(features, dim=-1), None)
