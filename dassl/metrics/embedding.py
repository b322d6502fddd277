"""How features lie on the unit sphere: close where they belong together (alignment), spread otherwise (uniformity).

Source: Wang and Isola (ICML 2020), ssnl/align_uniform 78ccdb1 align_uniform/__init__.py: over unordered pairs, none of
a feature with itself.
"""
from __future__ import annotations

import torch
from torch import Tensor


def alignment(x: Tensor, y: Tensor, alpha: float = 2.0) -> Tensor:
    """Mean distance of pairs to the power of `alpha`; lower: closer.

    Args:
        x, y: (N, D), unit norm; row i of both is a pair.
    """
    return (x - y).norm(dim=1).pow(alpha).mean()


def uniformity(x: Tensor, t: float = 2.0) -> Tensor:
    """Logarithm of the mean of exp(-t d^2) over all pairs, d their distance; lower: more evenly spread.

    Args:
        x: (N, D), unit norm, N >= 2.
    """
    return torch.pdist(x).pow(2).mul(-t).exp().mean().log()


def alignment_within(x: Tensor, groups: Tensor) -> Tensor | None:
    """`alignment` over all pairs of the same group; None where no group has two.

    Args:
        x: (N, D), unit norm. groups: (N,).
    """
    _, place, sizes = groups.unique(return_inverse=True, return_counts=True)
    sums = torch.zeros(len(sizes), x.shape[1], dtype=x.dtype, device=x.device).index_add_(0, place, x)
    squares = torch.zeros(len(sizes), dtype=x.dtype, device=x.device).index_add_(0, place, x.square().sum(1))
    pairs = (sizes * (sizes - 1) // 2).sum()
    return (sizes * squares - sums.square().sum(1)).sum() / pairs if pairs else None


def measures(images: Tensor, labels: Tensor, texts: Tensor | None) -> dict[str, dict[str, float | None]]:
    """Alignment and uniformity of images, of texts and of both; None where there is nothing to compare.

    "both": alignment of each image with the texts of its class, and uniformity of all features together.

    Args:
        images: (N, D), unit norm. labels: (N,).
        texts: (m, C, D), unit norm: m for each class; None without texts.
    """
    flat = None if texts is None else texts.flatten(0, 1)                                       # (m * C, D)
    own = None if texts is None else texts.shape[1] > int(labels.max())
    classes = None if texts is None else torch.arange(texts.shape[1], device=texts.device).repeat(len(texts))
    aligned = {"images": alignment_within(images, labels),
               "texts": None if texts is None else alignment_within(flat, classes),
               "both": torch.stack([alignment(images, each[labels]) for each in texts]).mean() if own else None}
    spread = {"images": images, "texts": flat, "both": None if texts is None else torch.cat([images, flat])}
    return {"alignment": {kind: None if value is None else float(value) for kind, value in aligned.items()},
            "uniformity": {kind: float(uniformity(x)) if x is not None and len(x) > 1 else None
                           for kind, x in spread.items()}}
