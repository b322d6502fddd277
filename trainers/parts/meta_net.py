"""Context words that every image shifts for itself.

Source: CoCoOp (Zhou et al., CVPR 2022), trainers/cocoop.py PromptLearner and CustomCLIP.
"""
from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from clip import FrozenCLIP, TextTokens
from trainers.parts.text_prompt import TextPrompt


class MetaNet(nn.Sequential):
    """(B, D) unit-norm image features -> (B, W), what each image adds to every context word.

    Two layers with a bottleneck of D // 16; PyTorch's initial weights, from torch's global stream.
    """

    def __init__(self, clip: FrozenCLIP):
        hidden = max(1, clip.embed_dim // 16)
        super().__init__(OrderedDict(linear1=nn.Linear(clip.embed_dim, hidden), relu=nn.ReLU(),
                                     linear2=nn.Linear(hidden, clip.text_width)))


class ConditionalPrompt(TextPrompt):
    """A text prompt whose context is shifted by a `MetaNet` of the image, so every image has text features of its own.

    The classes' own tokens stand behind each image's [start, context] in one batch over all images and classes; no
    class repeats the context. Arguments are those of `TextPrompt`, for one context before the class name.
    """

    conditional = True

    def __init__(self, clip: FrozenCLIP, classnames: list[str], n_ctx: int = 16, init: str = ""):
        super().__init__(clip, classnames, n_ctx, init)
        self.meta_net = MetaNet(clip)

    def forward(self, image_features: Tensor) -> TextTokens:
        """(B, D) unit norm -> the C prompts behind B prefixes."""
        return self.tokens(self.contexts(image_features))

    def contexts(self, image_features: Tensor) -> Tensor:
        """(B, D) unit norm -> (B, n, W)."""
        with torch.autocast(image_features.device.type, enabled=False):
            return self.ctx + self.meta_net(image_features).unsqueeze(1)
