"""Styles of feature maps mixed between images: MixStyle and EFDMix, and how they are switched in a whole model."""
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

    def _partners(self, B: int) -> Tensor:
        if self.mix == "random":
            return torch.randperm(B)
        if self.mix != "crossdomain":
            raise UserError(f"mix must be one of {', '.join(MIXES)}, got mix={self.mix!r}.")
        second, first = torch.arange(B - 1, -1, -1).chunk(2)
        return torch.cat([half[torch.randperm(len(half))] for half in (second, first)])


class MixStyle(StyleMixer):
    """Mixes each channel's mean and deviation, through which no gradient flows.

    Source: Zhou et al., ICLR 2021, eqs. 4 to 6.
    """

    def mixed(self, x: Tensor, share: Tensor, partners: Tensor) -> Tensor:
        """x with `share` (B, 1, 1, 1) of its own style and the rest of its partner's; partners: (B,) indices."""
        mean = x.mean((2, 3), keepdim=True).detach()                                    # (B, C, 1, 1)
        deviation = (x.var((2, 3), keepdim=True) + self.eps).sqrt().detach()            # (B, C, 1, 1)
        mixed_mean, mixed_deviation = (s * share + s[partners] * (1 - share) for s in (mean, deviation))
        return (x - mean) / deviation * mixed_deviation + mixed_mean


class EFDMix(StyleMixer):
    """Moves each value of a channel towards the partner's value of the same rank, through which no gradient flows.

    Source: Zhang et al., CVPR 2022, eq. 7.
    """

    def mixed(self, x: Tensor, share: Tensor, partners: Tensor) -> Tensor:
        values = x.flatten(2)                                                           # (B, C, H*W)
        in_order, order = values.sort(-1)
        matched = in_order[partners].gather(-1, order.argsort(-1))                      # (B, C, H*W)
        return (values + (matched - values).detach() * (1 - share[..., 0])).view_as(x)


def _switches(kind: type[StyleMixer]):
    """Functions for `model.apply` (activate, deactivate, mix at random, mix across domains), which leave others alone,
    and two context managers over a model: run_with(model, mix=None), after which nothing mixes, and run_without(model),
    after which everything mixes again.
    """
    def on_kind(change: Callable[[StyleMixer], None]) -> Callable[[nn.Module], None]:
        return lambda m: change(m) if isinstance(m, kind) else None

    activate, deactivate = (on_kind(lambda m, s=status: m.set_activation_status(s)) for status in (True, False))
    at_random, across_domains = (on_kind(lambda m, mix=mix: m.update_mix_method(mix)) for mix in MIXES)

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

    return activate, deactivate, at_random, across_domains, run_with, run_without


(activate_mixstyle, deactivate_mixstyle, random_mixstyle, crossdomain_mixstyle, run_with_mixstyle,
 run_without_mixstyle) = _switches(MixStyle)
(activate_efdmix, deactivate_efdmix, random_efdmix, crossdomain_efdmix, run_with_efdmix,
 run_without_efdmix) = _switches(EFDMix)
