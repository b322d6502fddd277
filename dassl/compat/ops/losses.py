"""Losses of adaptation and generalisation methods: discrepancy, optimal transport, smoothed labels, mixup."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dassl.metrics.distance import cosine_distance, euclidean_squared_distance
from dassl.utils.errors import UserError


def cross_entropy(input: Tensor, target: Tensor, label_smooth: float = 0, reduction: str = "mean") -> Tensor:
    """Of (B, C) scores and (B,) labels; every class gets label_smooth / C. `reduction` is "mean", "sum" or "none"."""
    return F.cross_entropy(input, target, label_smoothing=label_smooth, reduction=reduction)


def mixup(x1: Tensor, x2: Tensor, y1: Tensor, y2: Tensor, beta: float, preserve_order: bool = False):
    """Convex combinations of images and of labels, each pair with a share of its own from Beta(beta, beta).

    Args:
        x1, x2: (B, C, H, W). y1, y2: (B, K), one-hot or probabilities.
        preserve_order: the first batch gets the larger share.
    Returns:
        Images (B, C, H, W) and labels (B, K).
    Source: Zhang et al., ICLR 2018.
    """
    share = torch.distributions.Beta(beta, beta).sample((len(x1), 1, 1, 1))             # (B, 1, 1, 1)
    share = (torch.maximum(share, 1 - share) if preserve_order else share).to(x1.device)
    return x1 * share + x2 * (1 - share), y1 * share[..., 0, 0] + y2 * (1 - share[..., 0, 0])


def _rbf(a: Tensor, b: Tensor) -> Tensor:
    return sum(torch.exp(-euclidean_squared_distance(a, b) / (2 * sigma ** 2)) for sigma in (1, 5, 10))


_KERNELS = {"linear": lambda a, b: a @ b.t(), "poly": lambda a, b: (a @ b.t() + 2) ** 2, "rbf": _rbf}


class MaximumMeanDiscrepancy(nn.Module):
    """mean k(x, x') + mean k(y, y') - 2 mean k(x, y), without the pairs of a row with itself.

    Args:
        kernel_type: "linear" (x.y), "poly" ((x.y + 2)^2), or "rbf" (the sum of Gaussians of widths 1, 5 and 10).
        normalize: rows are scaled to unit length first.
    Source: Gretton et al., JMLR 2012, eq. 3.
    """

    def __init__(self, kernel_type: str = "rbf", normalize: bool = False):
        super().__init__()
        if kernel_type not in _KERNELS:
            raise UserError(f"kernel_type must be one of {', '.join(_KERNELS)}, got {kernel_type!r}.")
        self.kernel_type, self.normalize = kernel_type, normalize

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """(B, D), (B', D) -> ()."""
        if self.normalize:
            x, y = F.normalize(x, dim=1), F.normalize(y, dim=1)
        k = _KERNELS[self.kernel_type]
        return _between_different_rows(k(x, x)) + _between_different_rows(k(y, y)) - 2 * k(x, y).mean()


def _between_different_rows(k: Tensor) -> Tensor:
    return k[~torch.eye(len(k), dtype=torch.bool, device=k.device)].mean()


_DISTANCES = {"cosine": cosine_distance, "euclidean": euclidean_squared_distance,
              "fast_euclidean": euclidean_squared_distance}


class SinkhornDivergence(nn.Module):
    """2 W(x, y) - W(x, x) - W(y, y), with optimal transport W that entropy smooths.

    Args:
        dist_metric: "cosine" (1 - cosine), or "euclidean" or "fast_euclidean" (squared Euclidean).
        eps: weight of the entropy; smaller is nearer to exact transport and needs more iterations.
        max_iter: of Sinkhorn's; they end sooner when the potentials move less than `thre` in all.
        bp_to_sinkhorn: the gradient also flows through the transport plan.
    Source: Cuturi, NeurIPS 2013; Genevay et al., AISTATS 2018.
    """

    thre = 1e-3

    def __init__(self, dist_metric: str = "cosine", eps: float = 0.01, max_iter: int = 5,
                 bp_to_sinkhorn: bool = False):
        super().__init__()
        if dist_metric not in _DISTANCES:
            raise UserError(f"dist_metric must be one of {', '.join(_DISTANCES)}, got {dist_metric!r}.")
        self.dist_metric, self.eps, self.max_iter, self.bp_to_sinkhorn = dist_metric, eps, max_iter, bp_to_sinkhorn

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """(M, D), (N, D) -> ()."""
        return 2 * self.transport_cost(x, y) - self.transport_cost(x, x) - self.transport_cost(y, y)

    def transport_cost(self, x: Tensor, y: Tensor, return_pi: bool = False):
        """Cost () of the plan, and with `return_pi` the plan (M, N)."""
        costs = _DISTANCES[self.dist_metric](x, y)
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
    """Transport between halves of x and y, against that between the halves of each. Source: Salimans, ICLR 2018."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """(M, D), (N, D), both of an even number of rows -> ()."""
        if len(x) % 2 or len(y) % 2:
            raise UserError(f"The energy distance splits batches into halves; they have {len(x)} and {len(y)} rows.")
        (x1, x2), (y1, y2), cost = x.chunk(2), y.chunk(2), self.transport_cost
        across = cost(x1, y1) + cost(x1, y2) + cost(x2, y1) + cost(x2, y2)
        return across - 2 * cost(x1, x2) - 2 * cost(y1, y2)
