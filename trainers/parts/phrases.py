"""Several contexts that start from phrases.

Source: PLOT++ (Chen et al., ICLR 2023), plot-pp/trainers/plotpp.py MultiModalPromptLearner.
"""
from __future__ import annotations

from collections.abc import Sequence

import torch

from clip import FrozenCLIP, InputError, TextTokens
from trainers.parts.text_prompt import TextPrompt


class PhrasePrompt(TextPrompt):
    """P contexts of n words, shared by all classes and before their names, each from a phrase of its own.

    Words of a phrase behind the n-th are fixed; one that is shorter continues with the end-of-text, as in the authors'
    code, but class names stay whole.

    Args:
        phrases: P of them, e.g. "a photo of a".
        n_words: n; 0 is the number of words in the first phrase.
    Raises:
        InputError: a phrase without words.
    """

    def __init__(self, clip: FrozenCLIP, classnames: list[str], phrases: Sequence[str], n_words: int = 0):
        phrases = [phrase.replace("_", " ").strip() for phrase in phrases]
        if not phrases or not all(phrases):
            raise InputError(f"Each context needs a phrase to start from, got {phrases}.")
        lengths = [len(clip.tokenizer.encode(phrase)) for phrase in phrases]
        super().__init__(clip, classnames, n_words or lengths[0], n_prompts=len(phrases))
        ids = clip.tokenizer.tokenize(phrases, clip.context_length).to(self.ctx.device)[:, 1:]
        with torch.no_grad():
            self.ctx.copy_(clip.embed_tokens(ids[:, :self.n_ctx]))
            more = [clip.embed_tokens(own[self.n_ctx:length]) for own, length in zip(ids, lengths, strict=True)]
        self.fixed_words = [len(own) for own in more]
        self.register_buffer("more", torch.cat(more), persistent=False)                           # (sum of fixed, W)

    def forward(self) -> TextTokens | list[TextTokens]:
        """P prefixes; as many token sequences where they differ in length."""
        prefixes = [torch.cat([self.start, ctx, more])
                    for ctx, more in zip(self.ctx, self.more.split(self.fixed_words), strict=True)]
        if len(set(self.fixed_words)) == 1:
            prefix = torch.stack(prefixes)                                                        # (P, p, W)
            return TextTokens(self.suffix, self.eot - self.n_ctx - 1, prefix)
        return [TextTokens(self.suffix, self.eot - self.n_ctx - 1, prefix[None]) for prefix in prefixes]
