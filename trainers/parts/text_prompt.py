"""Learned context words around class names.

Source: CoOp (Zhou et al., IJCV 2022), trainers/coop.py PromptLearner; the layout "[context] [class]." and its "middle"
and "front" variants, the initial N(0, 0.02), and a context taken from words.
"""
from __future__ import annotations

import logging

import torch
from torch import Tensor, nn

from clip import FrozenCLIP, InputError, TextTokens, embed_texts

POSITIONS = ("end", "middle", "front")
logger = logging.getLogger(__name__)


class TextPrompt(nn.Module):
    """One prompt per class: n learned context vectors and the class's name.

    Only `ctx` is learned and saved. The fixed words are rebuilt from the class names, so a generic context also serves
    other classes than those it was learned on.

    Args:
        clip: gives the token embeddings of the fixed words.
        classnames: C names; underscores become spaces, unless `underscores`.
        n_ctx: context words; ignored when `init` is given.
        init: words whose embeddings the context starts from, e.g. "a photo of a": as many tokens are learned as there
            are words. Where words have more tokens ("pet," has two), the last ones stay fixed in front of the name, as
            in the authors' code; a context that is not shared, or does not end before the name, learns them all.
        position: of the class name: after the context ("end"), inside it ("middle") or before it ("front").
        class_specific: a context of its own for every class, instead of one for all.
        n_learned: learn only so many of the first tokens of `init`; the others stay fixed words in the prefix (MaPLe).
            None: see `init`.
        n_prompts: P contexts, each shared by all classes (PLOT); None: one, without that dimension.
        ending: what follows the class name, e.g. ", a type of pet." (TCP).
        underscores: class names keep theirs, as tokens.
    Attributes:
        ctx: (n, W), (C, n, W) when class-specific, or (P, n, W); drawn from N(0, 0.02) with torch's global stream
            unless `init`.
    Raises:
        InputError: an unknown position; a prompt of more tokens than CLIP's context length; options that do not go
            together.
    """

    first = 1           # position of the context's first word

    def __init__(self, clip: FrozenCLIP, classnames: list[str], n_ctx: int = 16, init: str = "", position: str = "end",
                 class_specific: bool = False, n_learned: int | None = None,
                 n_prompts: int | None = None, ending: str = ".", underscores: bool = False):
        super().__init__()
        if position not in POSITIONS:
            raise InputError(f"The class name must be at the {', '.join(POSITIONS[:-1])} or {POSITIONS[-1]}, got "
                             f"{position!r}.")
        if not (n_learned is n_prompts is None) and (position != "end" or class_specific):
            raise InputError("Several contexts, or one of which only the first words are learned, must be shared by "
                             f"all classes and end before the class name, got position {position!r}, "
                             f"{'class-specific' if class_specific else 'shared'}.")
        init = init.replace("_", " ").strip()
        encode = clip.tokenizer.encode
        words = len(encode(init)) if init else n_ctx
        learned = len(init.split()) if init and position == "end" and not class_specific else words
        n = learned if n_learned is None else n_learned
        if init and not 1 <= n <= words:
            raise InputError(f"A text prompt must learn 1 to {words} of its initial words {init!r}, got {n}.")
        if not 1 <= n <= clip.context_length:
            raise InputError(f"A text prompt must learn at least 1 context word, and with the class name fill at most "
                             f"{clip.context_length} tokens, got {n}.")
        if n_prompts is not None and n_prompts < 1:
            raise InputError(f"A class needs at least 1 prompt, got {n_prompts}.")
        self.class_specific, self.n_ctx = class_specific, n
        self.n_before = {"end": n, "middle": n // 2, "front": 0}[position]
        names = [name if underscores else name.replace("_", " ") for name in classnames]
        fixed = fixed_words(clip, names, init or " ".join(["X"] * words), words, ending)
        self.register_buffer("start", fixed.embeddings[0, :1], persistent=False)    # (1, W)
        self.register_buffer("rest", fixed.embeddings[0, 1 + n:1 + words], persistent=False)    # (words - n, W)
        self.register_buffer("suffix", fixed.embeddings[:, 1 + words:], persistent=False)    # (C, s, W): class . end
        self.eot = fixed.eot.cpu()    # (C,), in the whole prompt; where the text tower needs it behind a prefix
        self.register_buffer("read_at", fixed.eot, persistent=False)    # the same where it needs it without one
        order = own_order([len(encode(name)) for name in names], n - self.n_before, self.suffix.shape[1])
        self.register_buffer("order", order.to(self.start.device), persistent=False)    # (C, n_after + s)
        several = (len(names),) if class_specific else () if n_prompts is None else (n_prompts,)
        self.ctx = nn.Parameter(torch.empty(*several, n, clip.text_width, device=self.start.device))
        with torch.no_grad():
            if init:
                self.ctx.copy_(fixed.embeddings[0, 1:1 + n].expand_as(self.ctx))
            else:
                nn.init.normal_(self.ctx, std=0.02)

    def context(self) -> Tensor:
        """The context words that enter the text tower: what is learned, unless a prompt changes it."""
        return self.ctx

    def forward(self) -> TextTokens:
        """The C prompts as token embeddings; a generic context before the class name is one shared prefix, or P."""
        return self.tokens(self.context())

    def tokens(self, ctx: Tensor) -> TextTokens:
        """The prompts with these context words.

        Args:
            ctx: as the parameter, or for R images (R, n, W), or (R, C, n, W) when class-specific: R * C prompts then,
                the C of the first image first.
        """
        C, before = len(self.suffix), ctx[..., :self.n_before, :]    # (n_before, W), (C, ...) or (P, ...)
        own = self.own_tokens(ctx[..., self.n_before:, :], self.order)
        if not self.class_specific and self.n_before:
            start, rest = (x.expand(*before.shape[:-2], -1, -1) for x in (self.start, self.rest))
            prefix = torch.cat([start, before, rest], dim=-2)    # (p, W) or (P, p, W)
            return TextTokens(own, self.eot - prefix.shape[-2], prefix, self.read_at)
        before = before.expand(*before.shape[:-3], C, -1, -1)    # (..., C, n_before, W)
        start, own = (x.expand(*before.shape[:-2], -1, -1) for x in (self.start, own))
        whole = torch.cat([start, before, own], dim=-2).flatten(0, -3)    # (C, 1+n+s, W), or R * C of them
        return TextTokens(whole, self.read_at.repeat(len(whole) // C))

    def features(self, clip: FrozenCLIP, ctx: Tensor) -> Tensor:
        """Unit-norm text features (R, C, D) with context words for each of R images, see `tokens`."""
        return clip.encode_text(self.tokens(ctx)).reshape(len(ctx), len(self.suffix), -1)

    def contexts(self, image_features: Tensor) -> Tensor:
        """The context words with which each of R images (R, D) is answered: (R, n, W), or (R, C, n, W)."""
        return self.ctx.expand(len(image_features), *self.ctx.shape)

    def own_tokens(self, after: Tensor, order: Tensor) -> Tensor:
        """(C, n_after + s, W): each class's name, the context after it (n_after, W) or (C, n_after, W), and the end."""
        if not after.shape[-2]:
            return self.suffix
        own = torch.cat([after.expand(len(self.suffix), -1, -1), self.suffix], dim=1)
        return own.gather(1, order[..., None].expand(-1, -1, own.shape[-1]))


def own_order(name_lengths: list[int], n_after: int, s: int) -> Tensor:
    """(C, n_after + s) index into [context after the name, class . end] that puts the name first."""
    return torch.tensor([[*range(n_after, n_after + k), *range(n_after), *range(n_after + k, n_after + s)]
                         for k in name_lengths])


def fixed_words(clip: FrozenCLIP, classnames: list[str], before: str, n: int, ending: str = ".") -> TextTokens:
    """Embeddings of "<start> before <class>ending<end>", cut after the longest end.

    Args:
        n: tokens of `before`; only X, which stands for what is learned, need not be known to the model.
    Raises:
        InputError: a sentence of more tokens than the context length.
    """
    given = " ".join(word for word in before.split() if word != "X")
    try:
        return embed_texts(clip, [f"{before} {name}{ending}" for name in classnames],
                           words=[given, *classnames, ending])
    except InputError as error:
        raise InputError(f"A prompt holds at most {clip.context_length} tokens, {n} of them context here. {error}") \
            from error


def initial_words(init: str, n: int, most: int = 4) -> str:
    """The words from which n context words start; none, with a warning, where there are more than `most`.

    Source: MaPLe (Khattak et al., CVPR 2023), trainers/maple.py; IVLP and PromptSRC do the same.
    """
    if init and n > most:
        logger.warning("The initial words %r serve up to %d context words; these %d start from random values.", init,
                       most, n)
        return ""
    return init
