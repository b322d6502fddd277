"""Context words that every image shifts for itself.

Source: CoCoOp (Zhou et al., CVPR 2022), trainers/cocoop.py PromptLearner and CustomCLIP.
"""
from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from clip import FrozenCLIP
from trainers.parts.prompted_clip import Output, PromptLearner
from trainers.parts.text_prompt import TextPrompt


class MetaNet(nn.Sequential):
    """(B, D) unit-norm image features -> (B, W), what each image adds to every context word.

    Two layers with a bottleneck of D // 16; PyTorch's initial weights, from torch's global stream.
    """

    def __init__(self, clip: FrozenCLIP):
        hidden = max(1, clip.embed_dim // 16)
        super().__init__(OrderedDict(linear1=nn.Linear(clip.embed_dim, hidden), relu=nn.ReLU(),
                                     linear2=nn.Linear(hidden, clip.text_width)))


class ConditionalCLIP(nn.Module):
    """Frozen towers, and a text prompt whose context is shifted by a `MetaNet` of the image.

    Every image has text features of its own. The classes' own tokens stand behind each image's [start, context] in one
    batch over all images and classes; no class repeats the context.

    Args:
        clip: the towers; no gradient reaches their weights.
        text: one context for all classes, before the class name.
        saved_as: names of the learned parameters in a checkpoint, see `PromptLearner`.
    Attributes:
        prompt_learner: "text" and "meta_net", what is optimised and saved.
    """

    def __init__(self, clip: FrozenCLIP, text: TextPrompt, saved_as: Mapping[str, str] | None = None):
        super().__init__()
        self.clip = clip
        self.prompt_learner = PromptLearner({"text": text, "meta_net": MetaNet(clip)}, saved_as)

    def forward(self, images: Tensor) -> Output:
        """Images (B, 3, H, W), normalised, to logits (B, C); the output's text features are (B, C, D)."""
        image_features = self.clip.encode_image(images)                                   # (B, D)
        tokens = self.prompt_learner["text"]()
        start, ctx = tokens.prefix[:1], tokens.prefix[1:]                                 # (1, W), (n, W)
        with torch.autocast(images.device.type, enabled=False):
            ctx = ctx + self.prompt_learner["meta_net"](image_features).unsqueeze(1)      # (B, n, W)
        prefix = torch.cat([start.expand(len(ctx), -1, -1), ctx], dim=1)                  # (B, 1+n, W)
        text_features = self.clip.encode_text(replace(tokens, prefix=prefix))
        with torch.autocast(images.device.type, enabled=False):                           # cosines in float32
            logits = self.clip.scale * (text_features @ image_features.unsqueeze(2)).squeeze(2)     # (B, C)
        return Output(logits, image_features, text_features)
