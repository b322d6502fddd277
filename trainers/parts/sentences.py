"""Fixed sentences: encoded in every step where something in the text tower learns, or once, over several templates."""
from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip import FrozenCLIP, TextTokens, embed_texts, encode_texts
from trainers.parts.classes import Classes


class Sentences(nn.Module):
    """A text brick without parameters.

    Args:
        sentences: C, of which the words that all begin with go through the tower once.
    """

    def __init__(self, clip: FrozenCLIP, sentences: list[str]):
        super().__init__()
        tokens = embed_texts(clip, sentences, share=True)
        self.register_buffer("embeddings", tokens.embeddings, persistent=False)             # (C, L, W)
        self.register_buffer("prefix", tokens.prefix, persistent=False)                     # (p, W)
        self.eot = tokens.eot

    def forward(self) -> TextTokens:
        return TextTokens(self.embeddings, self.eot, self.prefix)


def mean_text_features(clip: FrozenCLIP, classes: Classes, templates: Sequence[str] = (),
                       unit_norm: bool = True) -> Tensor:
    """(C, D): the mean over templates of each class's features; the dataset's template where there are none.

    Args:
        unit_norm: normalised before and after the mean; else the mean of features as the tower gives them.
    Source: CLIP (Radford et al., ICML 2021), section 3.1.4; TaskRes (Yu et al., CVPR 2023), without normalising.
    """
    features = [encode_texts(clip, classes.sentences(template), unit_norm=unit_norm) for template in templates or ("",)]
    mean = torch.stack(features).mean(0)
    return F.normalize(mean, dim=-1) if unit_norm else mean
