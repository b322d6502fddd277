"""Muon for the matrices of the blocks: momentum whose singular values are all set to about one.

Source: Jordan et al., "Muon", 2024 (momentum, Nesterov, quintic Newton-Schulz coefficients); the factor
0.2 * sqrt(largest side), which makes AdamW's learning rates fit, is from Liu et al., arXiv 2502.16982, section 2.2.
"""

import torch
from torch import Tensor


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """(K, m, n) with m <= n -> same shape, singular values near 1."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices / (matrices.flatten(1).norm(dim=1).view(-1, 1, 1) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


class Muon(torch.optim.Optimizer):
    """Every parameter is a matrix; a (3W, W) attention input is treated as three (W, W) matrices."""

    def __init__(self, params, lr: float, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            stacks: dict[tuple, list] = {}
            for p in group["params"]:
                buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
                buffer.lerp_(p.grad, 1 - group["momentum"])
                update = p.grad.lerp(buffer, group["momentum"])
                for piece, target in zip(_pieces(update), _pieces(p), strict=True):
                    stacks.setdefault(tuple(piece.shape), []).append((piece, target))
            for shape, pairs in stacks.items():
                steps = orthogonalise(torch.stack([piece for piece, _ in pairs]))
                for step, (_, target) in zip(steps, pairs, strict=True):
                    target.mul_(1 - group["lr"] * group["weight_decay"])
                    target.sub_(step, alpha=group["lr"] * 0.2 * max(shape) ** 0.5)


def _pieces(matrix: Tensor) -> list[Tensor]:
    """Views with no more rows than columns."""
    rows, columns = matrix.shape
    if rows == 3 * columns:
        return list(matrix.view(3, columns, columns))
    return [matrix if rows <= columns else matrix.T]
