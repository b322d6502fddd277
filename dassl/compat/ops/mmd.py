"""Maximum mean discrepancy between two batches of features. Source: Gretton et al., JMLR 2012, eq. 3."""
from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dassl.metrics.distance import euclidean_squared_distance
from dassl.utils.errors import UserError


class MaximumMeanDiscrepancy(nn.Module):
    """mean k(x, x') + mean k(y, y') - 2 mean k(x, y), without the pairs of a row with itself.

    Args:
        kernel_type: "linear" (x.y), "poly" ((x.y + 2)^2), or "rbf" (the sum of Gaussians of widths 1, 5 and 10).
        normalize: rows are scaled to unit length first.
    """

    def __init__(self, kernel_type: str = "rbf", normalize: bool = False):
        super().__init__()
        self.kernel_type, self.normalize = kernel_type, normalize

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """(B, D), (B', D) -> ()."""
        if self.normalize:
            x, y = F.normalize(x, dim=1), F.normalize(y, dim=1)
        kernels = {"linear": self.linear_mmd, "poly": self.poly_mmd, "rbf": self.rbf_mmd}
        if self.kernel_type not in kernels:
            raise UserError(f"kernel_type is one of {', '.join(kernels)}; got {self.kernel_type!r}.")
        return kernels[self.kernel_type](x, y)

    def linear_mmd(self, x: Tensor, y: Tensor) -> Tensor:
        return _discrepancy(x, y, lambda a, b: a @ b.t())

    def poly_mmd(self, x: Tensor, y: Tensor, alpha: float = 1.0, c: float = 2.0, d: int = 2) -> Tensor:
        return _discrepancy(x, y, lambda a, b: (alpha * a @ b.t() + c) ** d)

    def rbf_mmd(self, x: Tensor, y: Tensor) -> Tensor:
        return _discrepancy(x, y, lambda a, b: self.rbf_kernel_mixture(euclidean_squared_distance(a, b)))

    @staticmethod
    def rbf_kernel_mixture(exponent: Tensor, sigmas: Sequence[float] = (1, 5, 10)) -> Tensor:
        return sum(torch.exp(-exponent / (2 * sigma ** 2)) for sigma in sigmas)


def _discrepancy(x: Tensor, y: Tensor, kernel: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    return _between_different_rows(kernel(x, x)) + _between_different_rows(kernel(y, y)) - 2 * kernel(x, y).mean()


def _between_different_rows(k: Tensor) -> Tensor:
    return k[~torch.eye(len(k), dtype=torch.bool, device=k.device)].mean()
