"""What MixStyle and EFDMix share: when they mix, with whom, and how they are switched in a whole model."""
from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dassl.utils.errors import UserError

MIXES = ("random", "crossdomain")


class StyleMixer(nn.Module):
    """Mixes the styles of a batch of feature maps in training, with probability `p`; else returns it as it is.

    Args:
        p: probability that a batch is mixed (drawn from Python's random stream).
        alpha: of Beta(alpha, alpha), from which each image's own share is drawn.
        eps: added to variances.
        mix: partners are "random", or of the other half of the batch ("crossdomain": its halves are two domains).
    """

    def __init__(self, p: float = 0.5, alpha: float = 0.1, eps: float = 1e-6, mix: str = "random"):
        super().__init__()
        self.p, self.alpha, self.eps, self.mix = p, alpha, eps, mix
        self.beta = torch.distributions.Beta(alpha, alpha)
        self._activated = True

    def __repr__(self) -> str:
        return f"{type(self).__name__}(p={self.p}, alpha={self.alpha}, eps={self.eps}, mix={self.mix})"

    def set_activation_status(self, status: bool = True) -> None:
        self._activated = status

    def update_mix_method(self, mix: str = "random") -> None:
        self.mix = mix

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        if not self.training or not self._activated or random.random() > self.p:
            return x
        share = self.beta.sample((len(x), 1, 1, 1)).to(x)                               # (B, 1, 1, 1)
        return self.mixed(x, share, self._partners(len(x)).to(x.device))

    def mixed(self, x: Tensor, share: Tensor, partners: Tensor) -> Tensor:
        """x with `share` (B, 1, 1, 1) of its own style and the rest of its partner's; partners: (B,) indices."""
        raise TypeError("Use MixStyle or EFDMix.")

    def _partners(self, B: int) -> Tensor:
        if self.mix == "random":
            return torch.randperm(B)
        if self.mix != "crossdomain":
            raise UserError(f"Styles are mixed by one of {', '.join(MIXES)}; got mix={self.mix!r}.")
        second, first = torch.arange(B - 1, -1, -1).chunk(2)
        return torch.cat([half[torch.randperm(len(half))] for half in (second, first)])


Switch = Callable[[nn.Module], None]


def switches(kind: type[StyleMixer]) -> tuple[Switch, Switch, Switch, Switch]:
    """Functions for `model.apply`: activate, deactivate, mix at random, mix across domains; others are left alone."""
    def on_kind(change: Callable[[StyleMixer], None]) -> Switch:
        return lambda m: change(m) if isinstance(m, kind) else None

    return (on_kind(lambda m: m.set_activation_status(True)), on_kind(lambda m: m.set_activation_status(False)),
            on_kind(lambda m: m.update_mix_method("random")), on_kind(lambda m: m.update_mix_method("crossdomain")))


def runners(activate: Switch, deactivate: Switch, at_random: Switch, across_domains: Switch):
    """Two context managers over a model: run_with(model, mix=None), after which nothing mixes, and run_without(model),
    after which everything mixes again."""
    @contextmanager
    def run_with(model: nn.Module, mix: str | None = None) -> Iterator[None]:
        if mix in MIXES:
            model.apply(at_random if mix == "random" else across_domains)
        try:
            model.apply(activate)
            yield
        finally:
            model.apply(deactivate)

    @contextmanager
    def run_without(model: nn.Module) -> Iterator[None]:
        try:
            model.apply(deactivate)
            yield
        finally:
            model.apply(activate)

    return run_with, run_without
