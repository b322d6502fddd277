"""Learned context words around class names.

Source: CoOp (Zhou et al., IJCV 2022), trainers/coop.py PromptLearner; the layout "[context] [class]." and its "middle"
and "front" variants, the initial N(0, 0.02), and a context taken from words.
"""
from __future__ import annotations

import torch
from torch import Tensor, nn

from clip import FrozenCLIP, InputError, TextTokens, embed_texts

POSITIONS = ("end", "middle", "front")


class TextPrompt(nn.Module):
    """One prompt per class: n learned context vectors and the class's name.

    Only `ctx` is learned and saved. The fixed words are rebuilt from the class names, so a generic context also serves
    other classes than those it was learned on.

    Args:
        clip: gives the token embeddings of the fixed words.
        classnames: C names; underscores become spaces.
        n_ctx: context words; ignored when `init` is given.
        init: words whose embeddings the context starts from, e.g. "a photo of a".
        position: of the class name: after the context ("end"), inside it ("middle") or before it ("front").
        class_specific: a context of its own for every class, instead of one for all.
        n_learned: learn only so many of the first tokens of `init`; the others stay fixed words in the prefix (MaPLe).
            None: all.
        n_prompts: P contexts, each shared by all classes (PLOT); None: one, without that dimension.
        ending: what follows the class name, e.g. ", a type of pet." (TCP).
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
                 n_prompts: int | None = None, ending: str = "."):
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
        n = words if n_learned is None else n_learned
        if init and not 1 <= n <= words:
            raise InputError(f"A text prompt must learn 1 to {words} of its initial words {init!r}, got {n}.")
        if not 1 <= n <= clip.context_length:
            raise InputError(f"A text prompt must learn at least 1 context word, and with the class name fill at most "
                             f"{clip.context_length} tokens, got {n}.")
        if n_prompts is not None and n_prompts < 1:
            raise InputError(f"A class needs at least 1 prompt, got {n_prompts}.")
        self.class_specific, self.n_ctx = class_specific, n
        self.n_before = {"end": n, "middle": n // 2, "front": 0}[position]
        names = [name.replace("_", " ") for name in classnames]
        fixed = fixed_words(clip, names, init or " ".join(["X"] * words), words, ending)
        self.register_buffer("start", fixed.embeddings[0, :1], persistent=False)    # (1, W)
        self.register_buffer("rest", fixed.embeddings[0, 1 + n:1 + words], persistent=False)    # (words - n, W)
        self.register_buffer("suffix", fixed.embeddings[:, 1 + words:], persistent=False)    # (C, s, W): class . end
        self.eot = fixed.eot.cpu()    # (C,), in the whole prompt; where the text tower needs it behind a prefix
        self.register_buffer("read_at", fixed.eot, persistent=False)    # the same where it needs it without one
        order = _own_order([len(encode(name)) for name in names], n - self.n_before, self.suffix.shape[1])
        self.register_buffer("order", order.to(self.start.device), persistent=False)    # (C, n_after + s)
        several = (len(names),) if class_specific else () if n_prompts is None else (n_prompts,)
        self.ctx = nn.Parameter(torch.empty(*several, n, clip.text_width, device=self.start.device))
        with torch.no_grad():
            if init:
                self.ctx.copy_(fixed.embeddings[0, 1:1 + n].expand_as(self.ctx))
            else:
                nn.init.normal_(self.ctx, std=0.02)

    def forward(self) -> TextTokens:
        """The C prompts as token embeddings; a generic context before the class name is one shared prefix, or P."""
        C, before = len(self.suffix), self.ctx[..., :self.n_before, :]    # (n_before, W), (C, ...) or (P, ...)
        own = self.suffix    # (C, s, W)
        if self.n_before < self.n_ctx:
            after = self.ctx[..., self.n_before:, :].expand(C, -1, -1)    # (C, n_after, W)
            own = torch.cat([after, own], dim=1).gather(1, self.order[..., None].expand(-1, -1, own.shape[-1]))
        if not self.class_specific and self.n_before:
            start, rest = (x.expand(*before.shape[:-2], -1, -1) for x in (self.start, self.rest))
            prefix = torch.cat([start, before, rest], dim=-2)    # (p, W) or (P, p, W)
            return TextTokens(own, self.eot - prefix.shape[-2], prefix, self.read_at)
        start, before = self.start.expand(C, -1, -1), before.expand(C, -1, -1)    # (C, 1, W), (C, n_before, W)
        return TextTokens(torch.cat([start, before, own], dim=1), self.read_at)    # (C, 1+n+s, W)


def _own_order(name_lengths: list[int], n_after: int, s: int) -> Tensor:
    """(C, n_after + s) index into [context after the name, class . end] that puts the name first."""
    return torch.tensor([[*range(n_after, n_after + k), *range(n_after), *range(n_after + k, n_after + s)]
                         for k in name_lengths])


def fixed_words(clip: FrozenCLIP, classnames: list[str], before: str, n: int, ending: str = ".") -> TextTokens:
    """Embeddings of "<start> before <class>ending<end>", cut after the longest end.

    Args:
        n: tokens of `before`; only X, which stands for what is learned, needs not be known to the model.
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
