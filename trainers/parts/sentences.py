"""Fixed sentences, encoded in every step where something in the text tower learns; and captions of images."""
from __future__ import annotations

from collections.abc import Callable, Sequence

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
        words, prefix = self.embeddings, self.prefix
        if self._embed is not None:
            words, prefix = self._embed(words), None if prefix is None else self._embed(prefix)
        return TextTokens(words, self.eot, prefix, self.read_at)


class TunedSentences(nn.Module):
    """Without parameters of its own, for a text tower whose token embeddings learn too: they are looked up each time.

    Args:
        sentences: P lists of C each; what is longer than the context is cut.
    """

    def __init__(self, clip: FrozenCLIP, sentences: list[list[str]]):
        super().__init__()
        self._clip, self.sentences = [clip], sentences          # in a list: the towers are no part of this brick
        for own in sentences:
            warn_of_captions(clip, own)

    def forward(self) -> list[TextTokens]:
        return [embed_texts(self._clip[0], own, share=True, words=(), truncate=True) for own in self.sentences]


def warn_of_captions(clip: FrozenCLIP, captions: list[str]) -> None:
    """Of those that are too long, and of words that the towers do not know."""
    warn_of_long_texts(clip, captions)
    warn_of_unknown_words(clip, captions)


class CaptionTokens:
    """Captions that may be drawn, as tokens: encoding some of them then reads nothing from the device.

    Args:
        captions: all of them, each once; what is longer than the context is cut.
    """

    def __init__(self, clip: FrozenCLIP, captions: Sequence[str]):
        self.rows = {caption: row for row, caption in enumerate(captions)}
        ids = clip.tokenizer.tokenize(list(captions), clip.context_length, truncate=True)
        self.whole = clip.read_at == "last" or not clip.causal
        self.eot = ids.argmax(dim=-1).tolist() if clip.read_at == "eot" else [ids.shape[1] - 1] * len(ids)
        self.ids = ids.to(clip.logit_scale.device)

    def encode(self, clip: FrozenCLIP, captions: Sequence[str]) -> Tensor:
        """(B, D), unit norm; equal captions pass the tower once, their token embeddings are looked up in it."""
        distinct, device = {caption: row for row, caption in enumerate(dict.fromkeys(captions))}, self.ids.device
        rows = [self.rows[caption] for caption in distinct]
        eot = [self.eot[row] for row in rows]
        ids = self.ids.index_select(0, torch.tensor(rows, device=device))                       # (U, 77)
        ids = ids if self.whole else ids[:, :max(eot) + 1]
        features = clip.encode_text(TextTokens(clip.embed_tokens(ids), torch.tensor(eot, device=device)))   # (U, D)
        return features.index_select(0, torch.tensor([distinct[caption] for caption in captions], device=device))
