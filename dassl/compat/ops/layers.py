"""Layers of adaptation methods: normalisation per domain, reversed gradients, modules of several inputs."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from dassl.utils.errors import UserError


class Sequential2(nn.Sequential):
    """Each module gets what the one before it returned; the items of a tuple become its arguments."""

    def forward(self, *inputs):
        for module in self:
            inputs = module(*inputs) if isinstance(inputs, tuple) else module(inputs)
        return inputs


class _ReverseGrad(torch.autograd.Function):
    @staticmethod
    def forward(ctx, input: Tensor, grad_scaling: float) -> Tensor:
        ctx.grad_scaling = grad_scaling
        return input.view_as(input)

    @staticmethod
    def backward(ctx, grad_output: Tensor) -> tuple[Tensor, None]:
        return -ctx.grad_scaling * grad_output, None


class ReverseGrad(nn.Module):
    """The identity, whose gradient is multiplied by -grad_scaling. Source: Ganin and Lempitsky, ICML 2015."""

    def forward(self, x: Tensor, grad_scaling: float = 1.0) -> Tensor:
        if grad_scaling < 0:
            raise UserError(f"The scale of a reversed gradient must be at least 0, got {grad_scaling}.")
        return _ReverseGrad.apply(x, grad_scaling)


class _DSBN(nn.Module):
    """One batch normalisation per domain; `select_bn` says which is used, at first that of domain 0.

    Source: Chang et al., CVPR 2019.
    """

    normalisation: type[nn.Module]

    def __init__(self, num_features: int, n_domain: int):
        super().__init__()
        self.bn = nn.ModuleList(self.normalisation(num_features) for _ in range(n_domain))
        self.n_domain, self.domain_idx = n_domain, 0

    def select_bn(self, domain_idx: int = 0) -> None:
        if domain_idx not in range(self.n_domain):
            raise UserError(f"There are domains 0 to {self.n_domain - 1}, got domain_idx={domain_idx}.")
        self.domain_idx = domain_idx

    def forward(self, x: Tensor) -> Tensor:
        return self.bn[self.domain_idx](x)


class DSBN1d(_DSBN):
    """(B, C) -> (B, C)."""

    normalisation = nn.BatchNorm1d


class DSBN2d(_DSBN):
    """(B, C, H, W) -> (B, C, H, W)."""

    normalisation = nn.BatchNorm2d


class _TransNorm(nn.Module):
    """In training, the first half of a batch is the source domain and the second the target; tests are of the target.

    Args:
        momentum: share of the old running statistics that stays in each step, as in Dassl (0.1 keeps a tenth).
        adaptive_alpha: channels in which the domains agree are amplified.
    Source: Wang et al., NeurIPS 2019.
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
            raise UserError(f"{type(self).__name__} takes tensors of {self.dims} dimensions, got {input.dim()}.")
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
