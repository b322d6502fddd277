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


def mean_text_features(clip: FrozenCLIP, classes: Classes, templates: Sequence[str] = ()) -> Tensor:
    """(C, D) unit norm: the mean over templates of each class's features; the dataset's template where there are none.

    Source: CLIP (Radford et al., ICML 2021), section 3.1.4: normalised before and after the mean.
    """
    features = [encode_texts(clip, classes.sentences(template)) for template in templates or ("",)]
    return F.normalize(torch.stack(features).mean(0), dim=-1)
