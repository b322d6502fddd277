"""Normalisation with statistics per domain and a weight per channel. Source: Wang et al., NeurIPS 2019."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from dassl.utils.errors import UserError


class _TransNorm(nn.Module):
    """In training, the first half of a batch is the source domain and the second the target; tests are of the target.

    Args:
        momentum: share of the old running statistics that stays in each step, as in Dassl (0.1 keeps a tenth).
        adaptive_alpha: channels in which the domains agree are amplified.
    """

    dims: int

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, adaptive_alpha: bool = True):
        super().__init__()
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.adaptive_alpha = adaptive_alpha
        for domain in ("s", "t"):
            self.register_buffer(f"running_mean_{domain}", torch.zeros(num_features))
            self.register_buffer(f"running_var_{domain}", torch.ones(num_features))
        self.weight, self.bias = nn.Parameter(torch.ones(num_features)), nn.Parameter(torch.zeros(num_features))

    def forward(self, input: Tensor) -> Tensor:
        """(B, C) or (B, C, H, W), as the class says; B even in training."""
        if input.dim() != self.dims:
            raise UserError(f"{type(self).__name__} takes tensors of {self.dims} dimensions; got {input.dim()}.")
        if not self.training:
            statistics = [(self.running_mean_s, self.running_var_s), (self.running_mean_t, self.running_var_t)]
            output = self._normalised(input, *statistics[1])
        else:
            if len(input) % 2:
                raise UserError(f"{type(self).__name__} splits a batch into two halves; it has {len(input)} rows.")
            halves = input.chunk(2)
            statistics = [self._measured(half, domain) for half, domain in zip(halves, "st", strict=True)]
            output = torch.cat([self._normalised(half, *s) for half, s in zip(halves, statistics, strict=True)])
        if not self.adaptive_alpha:
            return output
        return output * (1 + self._as_input(self._alpha(*statistics)))

    def _measured(self, half: Tensor, domain: str) -> tuple[Tensor, Tensor]:
        values = half.transpose(0, 1).flatten(1)                                        # (C, rest)
        measured = values.mean(1), values.var(1)
        for name, value in zip(("mean", "var"), measured, strict=True):
            running = getattr(self, f"running_{name}_{domain}")
            running.mul_(self.momentum).add_(value.detach(), alpha=1 - self.momentum)
        return measured

    def _normalised(self, x: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        x = (x - self._as_input(mean)) / self._as_input((var + self.eps).sqrt())
        return x * self._as_input(self.weight) + self._as_input(self.bias)

    def _alpha(self, source: tuple[Tensor, Tensor], target: tuple[Tensor, Tensor]) -> Tensor:
        """(C,), mean 1, no gradient."""
        ratios = [mean / (var + self.eps).sqrt() for mean, var in (source, target)]
        nearness = 1 / (1 + (ratios[0] - ratios[1]).abs())
        return (nearness / nearness.mean()).detach()

    def _as_input(self, v: Tensor) -> Tensor:
        return v.view(1, -1, *[1] * (self.dims - 2))


class TransNorm1d(_TransNorm):
    """(B, C) -> (B, C)."""

    dims = 2


class TransNorm2d(_TransNorm):
    """(B, C, H, W) -> (B, C, H, W)."""

    dims = 4
