"""Fixed sentences, encoded in every step where something in the text tower learns; and captions of images."""
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from clip import FrozenCLIP, TextTokens, embed_texts, warn_of_long_texts, warn_of_unknown_words


class Sentences(nn.Module):
    """A text brick without parameters.

    Args:
        sentences: C, of which the words that all begin with go through the tower once.
        embed: changes embedded words (..., W), before they have positions; None leaves them.
    """

    def __init__(self, clip: FrozenCLIP, sentences: list[str], embed: Callable[[Tensor], Tensor] | None = None):
        super().__init__()
        self._embed = embed
        tokens = embed_texts(clip, sentences, share=True)
        self.register_buffer("embeddings", tokens.embeddings, persistent=False)             # (C, L, W)
        self.register_buffer("prefix", tokens.prefix, persistent=False)                     # (p, W)
        self.eot = tokens.eot
        p = 0 if tokens.prefix is None else len(tokens.prefix)
        self.register_buffer("read_at", (tokens.eot + p).to(tokens.embeddings.device), persistent=False)    # (C,)

    def forward(self) -> TextTokens:
from collections.abc import Callable

import torch
