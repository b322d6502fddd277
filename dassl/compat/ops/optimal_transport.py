"""Optimal transport between two batches of features, smoothed by entropy.

Source: Cuturi, NeurIPS 2013; Genevay et al., AISTATS 2018 (Sinkhorn divergence); Salimans et al., ICLR 2018 (energy).
"""
from __future__ import annotations

import torch
from torch import Tensor, nn

from dassl.metrics.distance import cosine_distance, euclidean_squared_distance
from dassl.utils.errors import UserError

_DISTANCES = {"cosine": cosine_distance, "euclidean": euclidean_squared_distance,
              "fast_euclidean": euclidean_squared_distance}


class OptimalTransport(nn.Module):
    """The costs that a transport is made of."""

    @staticmethod
    def distance(batch1: Tensor, batch2: Tensor, dist_metric: str = "cosine") -> Tensor:
        """(M, D), (N, D) -> (M, N): 1 - cosine, or squared Euclidean for "euclidean" and "fast_euclidean"."""
        if dist_metric not in _DISTANCES:
            raise UserError(f"dist_metric is one of {', '.join(_DISTANCES)}; got {dist_metric!r}.")
        return _DISTANCES[dist_metric](batch1, batch2)


class SinkhornDivergence(OptimalTransport):
    """2 W(x, y) - W(x, x) - W(y, y).

    Args:
        eps: weight of the entropy; smaller is nearer to exact transport and needs more iterations.
        max_iter: of Sinkhorn's; they end sooner when the potentials move less than `thre` in all.
        bp_to_sinkhorn: the gradient also flows through the transport plan.
    """

    thre = 1e-3

    def __init__(self, dist_metric: str = "cosine", eps: float = 0.01, max_iter: int = 5,
                 bp_to_sinkhorn: bool = False):
        super().__init__()
        self.dist_metric, self.eps, self.max_iter, self.bp_to_sinkhorn = dist_metric, eps, max_iter, bp_to_sinkhorn

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """(M, D), (N, D) -> ()."""
        return 2 * self.transport_cost(x, y) - self.transport_cost(x, x) - self.transport_cost(y, y)

    def transport_cost(self, x: Tensor, y: Tensor, return_pi: bool = False):
        """Cost () of the plan, and with `return_pi` the plan (M, N)."""
        costs = self.distance(x, y, self.dist_metric)
        plan = self.sinkhorn_iterate(costs, self.eps, self.max_iter, self.thre)
        plan = plan if self.bp_to_sinkhorn else plan.detach()
        cost = (plan * costs).sum()
        return (cost, plan) if return_pi else cost

    @staticmethod
    def sinkhorn_iterate(C: Tensor, eps: float, max_iter: int, thre: float) -> Tensor:
        """Costs (M, N) -> a plan (M, N) whose rows sum to about 1/M and whose columns sum to 1/N."""
        M, N = C.shape
        u, v = C.new_zeros(M), C.new_zeros(N)
        log_row, log_column = (torch.log(C.new_tensor(1 / n) + 1e-8) for n in (M, N))

        def scaled() -> Tensor:
            return (u[:, None] + v - C) / eps                                           # (M, N)

        for _ in range(max_iter):
            before = u
            u = eps * (log_row - scaled().logsumexp(1)) + u
            v = eps * (log_column - scaled().logsumexp(0)) + v
            if (u - before).abs().sum() < thre:
                break
        return scaled().exp()


class MinibatchEnergyDistance(SinkhornDivergence):
    """Transport between halves of x and y, against that between the halves of each."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """(M, D), (N, D), both of an even number of rows -> ()."""
        if len(x) % 2 or len(y) % 2:
            raise UserError(f"The energy distance splits batches into halves; they have {len(x)} and {len(y)} rows.")
        (x1, x2), (y1, y2), cost = x.chunk(2), y.chunk(2), self.transport_cost
        across = cost(x1, y1) + cost(x1, y2) + cost(x2, y1) + cost(x2, y2)
        return across - 2 * cost(x1, x2) - 2 * cost(y1, y2)
