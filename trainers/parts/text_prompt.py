"""Learned context words around class names.

Source: CoOp (Zhou et al., IJCV 2022), trainers/coop.py PromptLearner; the layout "[context] [class]." and its "middle"
and "front" variants, the initial N(0, 0.02), and a context taken from words.
"""
from __future__ import annotations

import torch
from torch import Tensor, nn

from clip import FrozenCLIP, InputError, TextTokens, tokenize
from clip.text import warn_of_unknown_words
from clip.tokenizer import encode

POSITIONS = ("end", "middle", "front")


class TextPrompt(nn.Module):
    """One prompt per class: n learned context vectors and the class's name, ended by a full stop.

    Only `ctx` is learned and saved. The fixed words are rebuilt from the class names, so a generic context also serves
    other classes than those it was learned on.

    Args:
        clip: gives the token embeddings of the fixed words.
        classnames: C names; underscores become spaces.
        n_ctx: context words; ignored when `init` is given.
        init: words whose embeddings the context starts from, e.g. "a photo of a".
        position: of the class name: after the context ("end"), inside it ("middle") or before it ("front").
        class_specific: a context of its own for every class, instead of one for all.
    Attributes:
        ctx: (n, W), or (C, n, W) when class-specific; drawn from N(0, 0.02) with torch's global stream unless `init`.
    Raises:
        InputError: an unknown position; a prompt of more tokens than CLIP's context length.
    """

    def __init__(self, clip: FrozenCLIP, classnames: list[str], n_ctx: int = 16, init: str = "", position: str = "end",
                 class_specific: bool = False):
        super().__init__()
        if position not in POSITIONS:
            raise InputError(f"The class name stands at one of {', '.join(POSITIONS)}; got {position!r}.")
        init = init.replace("_", " ").strip()
        n = len(encode(init)) if init else n_ctx
        if not 1 <= n <= clip.context_length:
            raise InputError(f"A text prompt learns at least 1 context word, and with the class name fills at most "
                             f"{clip.context_length} tokens; got {n} context words.")
        self.class_specific, self.n_ctx = class_specific, n
        self.n_before = {"end": n, "middle": n // 2, "front": 0}[position]
        names = [name.replace("_", " ") for name in classnames]
        fixed = _fixed_words(clip, names, init, n)
        self.register_buffer("start", fixed.embeddings[0, :1], persistent=False)    # (1, W)
        self.register_buffer("suffix", fixed.embeddings[:, 1 + n:], persistent=False)    # (C, s, W): class . end
        self.eot = fixed.eot.cpu()    # (C,), in the whole prompt; where the text tower needs it behind a prefix
        self.register_buffer("read_at", fixed.eot, persistent=False)    # the same where it needs it without one
        order = _own_order([len(encode(name)) for name in names], n - self.n_before, self.suffix.shape[1])
        self.register_buffer("order", order.to(self.start.device), persistent=False)    # (C, n_after + s)
        size = (len(names), n, clip.text_width) if class_specific else (n, clip.text_width)
        self.ctx = nn.Parameter(torch.empty(size, device=self.start.device))
        with torch.no_grad():
            if init:
                self.ctx.copy_(fixed.embeddings[0, 1:1 + n].expand(size))
            else:
                nn.init.normal_(self.ctx, std=0.02)

    def forward(self) -> TextTokens:
        """The C prompts as token embeddings; a generic context before the class name is kept as one shared prefix."""
        C, before = len(self.suffix), self.ctx[..., :self.n_before, :]    # (n_before, W) or (C, ...)
        own = self.suffix    # (C, s, W)
        if self.n_before < self.n_ctx:
            after = self.ctx[..., self.n_before:, :].expand(C, -1, -1)    # (C, n_after, W)
            own = torch.cat([after, own], dim=1).gather(1, self.order[..., None].expand(-1, -1, own.shape[-1]))
        if not self.class_specific and self.n_before:
            return TextTokens(own, self.eot - 1 - self.n_before, torch.cat([self.start, before]))
        start, before = self.start.expand(C, -1, -1), before.expand(C, -1, -1)    # (C, 1, W), (C, n_before, W)
        return TextTokens(torch.cat([start, before, own], dim=1), self.read_at)    # (C, 1+n+s, W)


def _own_order(name_lengths: list[int], n_after: int, s: int) -> Tensor:
    """(C, n_after + s) index into [context after the name, class . end] that puts the name first."""
    return torch.tensor([[*range(n_after, n_after + k), *range(n_after), *range(n_after + k, n_after + s)]
                         for k in name_lengths])


def _fixed_words(clip: FrozenCLIP, classnames: list[str], init: str, n: int) -> TextTokens:
    """Embeddings of "<start> X .. X <class>. <end>" (or with the initial words), cut after the longest end."""
    sentences = [f"{init or ' '.join(['X'] * n)} {name}." for name in classnames]
    try:
        ids = tokenize(sentences, clip.context_length).to(clip.logit_scale.device)    # (C, 77)
    except InputError as error:
        raise InputError(f"A prompt holds at most {clip.context_length} tokens, {n} of them context here. {error}") \
            from error
    warn_of_unknown_words(clip, [init, *classnames] if init else classnames)
    eot = ids.argmax(dim=-1)    # (C,)
    with torch.no_grad():
        return TextTokens(clip.embed_tokens(ids[:, :int(eot.max()) + 1]), eot)
