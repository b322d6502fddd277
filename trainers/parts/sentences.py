"""Fixed sentences, encoded in every step where something in the text tower learns."""
from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from clip import FrozenCLIP, TextTokens, embed_texts


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
        words, prefix = self.embeddings, self.prefix
        if self._embed is not None:
            words, prefix = self._embed(words), None if prefix is None else self._embed(prefix)
        return TextTokens(words, self.eot, prefix, self.read_at)
