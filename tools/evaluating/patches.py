"""Images of which patches are covered or exchanged, and where a patch of an attack's may be.

Source: Intriguing Properties of Vision Transformers (Naseer et al., NeurIPS 2021): random and salient patches are
dropped (black), pieces are shuffled. Salient ones are theirs by DINO's attention; here by the gradient of the likeliest
class's score to the pixels, which every trainer has.
"""
from __future__ import annotations

import math

import torch
from torch import Tensor

from trainers.under_attack import Attackable


def occlude(images: Tensor, order: Tensor, share: float) -> Tensor:
    """Images (B, 3, H, W) in [0, 1] with a share of their cells black: the first of `order` (B, g * g)."""
    B, cells = order.shape
    dropped = torch.zeros(B, cells, dtype=torch.bool, device=images.device)
    dropped.scatter_(1, order[:, :round(share * cells)], True)
    return images * ~_spread(dropped, images)


def random_order(images: Tensor, side: int, seed: int) -> Tensor:
    """(B, side * side) all cells of each image, drawn by the seed."""
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randperm(side * side, generator=generator) for _ in images]).to(images.device)


def salient_order(model: Attackable, images: Tensor, side: int) -> Tensor:
    """(B, side * side) all cells, those that the answer depends on most first."""
    with torch.enable_grad():
        seen = images.clone().requires_grad_()
        gradient, = torch.autograd.grad(model(seen).amax(dim=1).sum(), seen)
    place = cell_of(images, side).expand(len(images), -1)                                     # (B, H * W)
    sums = torch.zeros(len(images), side * side, device=images.device)
    sums.scatter_add_(1, place, gradient.abs().sum(dim=1).flatten(1))
    return sums.argsort(dim=1, descending=True, stable=True)


def shuffle(images: Tensor, pieces: int, seed: int) -> Tensor:
    """Images whose square pieces, a square number of them, are in another order; pixels left over stay in place."""
    side, S = math.isqrt(pieces), images.shape[-1]
    size, generator = S // side, torch.Generator().manual_seed(seed)
    order = torch.stack([torch.randperm(pieces, generator=generator) for _ in images]).to(images.device)
    inner = images[..., :side * size, :side * size]
    parts = inner.unflatten(-1, (side, size)).unflatten(-3, (side, size))                     # (B, 3, g, s, g, s)
    parts = parts.transpose(-3, -2).flatten(2, 3)                                             # (B, 3, g * g, s, s)
    parts = parts.gather(2, order[:, None, :, None, None].expand_as(parts))
    whole = images.clone()
    parts = parts.unflatten(2, (side, side)).transpose(-3, -2)                                # (B, 3, g, s, g, s)
    whole[..., :side * size, :side * size] = parts.flatten(-2).flatten(2, 3)
    return whole


def square(images: Tensor, share: float, seed: int) -> Tensor:
    """(B, 1, H, W) bool: a square of that share of the image, at a place drawn for each."""
    S = images.shape[-1]
    width, generator = max(1, round(math.sqrt(share) * S)), torch.Generator().manual_seed(seed)
    first = torch.randint(0, S - width + 1, (2, len(images), 1), generator=generator).to(images.device)
    line = torch.arange(S, device=images.device)
    rows, columns = ((line >= start) & (line < start + width) for start in first)             # (B, S)
    return (rows[:, :, None] & columns[:, None, :]).unsqueeze(1)


def cell_of(images: Tensor, side: int) -> Tensor:
    """(1, H * W) the cell of each pixel, of side * side."""
    line = torch.arange(images.shape[-1], device=images.device) * side // images.shape[-1]
    return (line[:, None] * side + line[None, :]).flatten()[None]


def _spread(cells: Tensor, images: Tensor) -> Tensor:
    """(B, g * g) -> (B, 1, H, W)."""
    place = cell_of(images, math.isqrt(cells.shape[1])).expand(len(images), -1)
    return cells.gather(1, place).view(len(images), 1, *images.shape[-2:])
