"""Several learned contexts, each with a place of its own for the class name, of which a step may use a part.

Source: ProDA (Lu et al., CVPR 2022), section 3.2.
"""
from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch

from clip import FrozenCLIP, InputError, TextTokens
from trainers.parts.text_prompt import TextPrompt, own_order


class PromptSet(TextPrompt):
    """P contexts, each shared by all classes: the first quarter behind the class name, the next around it, half before.

    Args:
        n_prompts: P, a multiple of 4; or 1, which comes before the class name.
        underscores: class names keep theirs, and a name is as many tokens long as without them: a context behind or
            around a name of several words cuts it, as in the code that `trainers.proda` names.
    Attributes:
        ctx: (P, n, W), drawn from N(0, 0.02) with torch's global stream.
        n_ahead: of each prompt, how many of its words stand before the class name.
        drawn: which prompts are used, in rising order; all of them at first.
    Raises:
        InputError: a number of prompts that has no quarters; a prompt that is too long.
    """

    def __init__(self, clip: FrozenCLIP, classnames: list[str], n_ctx: int, n_prompts: int, underscores: bool = False):
        if n_prompts != 1 and (n_prompts < 4 or n_prompts % 4):
            raise InputError("A quarter of the prompts stand behind the class name, a quarter around it and half "
                             f"before it, so there must be 1 or a multiple of 4, got {n_prompts}.")
        super().__init__(clip, classnames, n_ctx, n_prompts=n_prompts, underscores=underscores)
        quarter = n_prompts // 4
        self.n_ahead = [0] * quarter + [n_ctx // 2] * quarter + [n_ctx] * (n_prompts - 2 * quarter)
        self.drawn: Sequence[int] = range(n_prompts)
        self.place_names([len(clip.tokenizer.encode(name.replace("_", " "))) for name in classnames])
        stop = clip.tokenizer.tokenize(["."], clip.context_length)[0, 1:3]
        self.eot_alone = torch.full((n_prompts,), n_ctx + 1)    # of contexts without a class; kept on the CPU
        self.register_buffer("stop", clip.embed_tokens(stop.to(self.ctx.device)), persistent=False)    # (2, W): . end

    def place_names(self, lengths: list[int]) -> None:
        """The first so many tokens of what follows a context are the class's name."""
        for n_ahead in {0, self.n_ctx // 2}:
            order = own_order(lengths, self.n_ctx - n_ahead, self.suffix.shape[1])
            self.register_buffer(f"order_{n_ahead}", order.to(self.ctx.device), persistent=False)

    @contextlib.contextmanager
    def only(self, drawn: Sequence[int]) -> Iterator[None]:
        """Use these prompts alone."""
        self.drawn = sorted(drawn)
        try:
            yield
        finally:
            self.drawn = range(len(self.n_ahead))

    def forward(self) -> list[TextTokens]:
        """The drawn prompts in their order, each as C sequences behind its prefix; those of the last half together."""
        before = [p for p in self.drawn if self.n_ahead[p] == self.n_ctx]
        found = [self._around(p) for p in self.drawn if p not in before]
        if before:
            prefix = torch.cat([self.start.expand(len(before), -1, -1), self.ctx[before]], dim=1)      # (b, 1 + n, W)
            found.append(TextTokens(self.suffix, self.eot - prefix.shape[1], prefix))
        return found

    def _around(self, p: int) -> TextTokens:
        """A prompt of which words stand behind the class name."""
        n = self.n_ahead[p]
        prefix = torch.cat([self.start, self.ctx[p, :n]])[None]                               # (1, 1 + n, W)
        own = self.own_tokens(self.ctx[p, n:], getattr(self, f"order_{n}"))
        return TextTokens(own, self.eot - prefix.shape[1], prefix)

    def without_classes(self) -> TextTokens:
        """All P contexts as sentences of their own, ended by a full stop."""
        words = torch.cat([self.ctx, self.stop.expand(len(self.ctx), -1, -1)], dim=1)         # (P, n + 2, W)
        return TextTokens(words, self.eot_alone, self.start)
