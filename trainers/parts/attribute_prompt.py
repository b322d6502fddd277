"""Learned words before words that name attributes, and a learned context behind them.

Source: ATPrompt (Li et al., ICCV 2025), trainers/coop_atp.py PromptLearner.
"""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from clip import FrozenCLIP, InputError, TextTokens
from trainers.parts.text_prompt import fixed_words


class AttributePrompt(nn.Module):
    """One prompt per class: "[a1] color [a2] shape [ctx] <class>.", where what is in brackets is learned.

    Args:
        attributes: words, e.g. ("color", "shape"); A of them.
        n_soft: learned words before each attribute. n_ctx: those behind all of them.
        whole_words: an attribute of several tokens is kept whole. Otherwise places are counted as if each were one
            token: of a longer one the later places shift, a learned word or an X is where the next attribute was,
            and the name keeps what is left in front of it (the authors' code, for "playfulness").
    Attributes:
        ctx: (n_ctx, W), drawn from N(0, 0.02). soft: (A, n_soft, W), drawn from N(0, 0.01), with torch's global stream.
    Raises:
        InputError: no attribute, or an empty one; fewer than one learned word; a prompt longer than CLIP's context.
    """

    def __init__(self, clip: FrozenCLIP, classnames: Sequence[str], attributes: Sequence[str], n_soft: int, n_ctx: int,
                 whole_words: bool = False):
        super().__init__()
        if not attributes or not all(isinstance(word, str) and word.strip() for word in attributes):
            raise InputError(f"An attribute prompt needs at least one attribute, each a word, got {list(attributes)}.")
        if n_soft < 1 or n_ctx < 1:
            raise InputError("An attribute prompt must learn at least 1 word before each attribute and 1 before the "
                             f"name, got {n_soft} and {n_ctx}.")
        soft, context = " ".join(["X"] * n_soft), " ".join(["X"] * n_ctx)
        before = " ".join([f"{soft} {word.strip()}" for word in attributes] + [context])
        names = [name.replace("_", " ") for name in classnames]
        encode = clip.tokenizer.encode
        fixed = fixed_words(clip, names, before, len(encode(before)))
        self.places, at = [], 1                                   # where learned words begin
        for word in attributes:
            self.places.append(at)
            at += n_soft + (len(encode(word)) if whole_words else 1)
        self.places.append(at)
        self.n_ctx, self.first, end = n_ctx, at, at + n_ctx
        self.register_buffer("words", fixed.embeddings[0, :end], persistent=False)            # (p, W)
        self.register_buffer("own", fixed.embeddings[:, end:], persistent=False)              # (C, L, W)
        self.eot = fixed.eot.cpu() - end
        self.ctx = nn.Parameter(self.words.new_empty(n_ctx, clip.text_width))
        self.soft = nn.Parameter(self.words.new_empty(len(attributes), n_soft, clip.text_width))
        nn.init.normal_(self.ctx, std=0.02)
        nn.init.normal_(self.soft, std=0.01)

    def forward(self) -> TextTokens:
        """The C prompts; everything before the name is one shared prefix."""
        pieces, at = [], 0
        for place, learned in zip(self.places, [*self.soft, self.ctx], strict=True):
            pieces += [self.words[at:place], learned]
            at = place + len(learned)
        return TextTokens(self.own, self.eot, torch.cat(pieces))                              # prefix (p, W)
