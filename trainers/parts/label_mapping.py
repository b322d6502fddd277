"""From scores of descriptions (B, C, m) to logits of classes (B, C): the mean of the best ones, or learned weights.

Source: AttrVR (Cai et al., ICLR 2025), tools.py getLogits; DVP (Cai et al., ICML 2025), tools.py calculate_prm,
initialize_prm and balanced_clustering. DVP's reweighting matrix (C*m, C) is zero but for each class's own m rows; only
those are kept, as weights (C, m).
"""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from clip import InputError


def topk_mean(scores: Tensor, k: int) -> Tensor:
    """(..., m) -> (...): mean of the k largest."""
    return scores.topk(k, dim=-1).values.mean(-1)


def topk_own(scores: Tensor, labels: Tensor, k: int) -> Tensor:
    """Which descriptions of its true class match an image best.

    Args:
        scores: (B, C, m). labels: (B,) in [0, C).
    Returns:
        (B, k) int64 in [0, m), the best first.
    """
    return scores[torch.arange(len(labels), device=labels.device), labels].topk(k, dim=1).indices


def count_descriptions(picked: Tensor, labels: Tensor, num_classes: int, m: int) -> Tensor:
    """(C, m) int64: how often each description was among those picked (B, k) for images of its class, labels (B,)."""
    places = labels[:, None] * m + picked                                         # (B, k)
    counts = places.new_zeros(num_classes * m)           # bincount would read its largest value from the GPU
    return counts.scatter_add_(0, places.flatten(), torch.ones_like(places).flatten()).view(num_classes, m)


def cluster(features: Tensor, n_clusters: int, n_init: int = 1) -> Tensor:
    """k-means groups of descriptions.

    Args:
        features: (C, m, D), unit norm.
        n_clusters: groups; at most C * m.
        n_init: starts, of which the best counts. The authors leave it to scikit-learn, whose default was 10 before
            release 1.4 and is 1 since; pinned here so that a run does not depend on the release.
    Returns:
        (C, m) int64 in [0, n_clusters).
    """
    from sklearn.cluster import KMeans  # takes long to import

    C, m, _ = features.shape
    if not 1 <= n_clusters <= C * m:
        raise InputError(f"{C * m} descriptions must fall into 1 to {C * m} clusters, got {n_clusters}.")
    means = KMeans(n_clusters, random_state=0, n_init=n_init).fit(features.flatten(0, 1).cpu().numpy())
    return torch.from_numpy(means.labels_).long().view(C, m).to(features.device)


class TopKMean(nn.Module):
    """A class's logit: the mean of its k best scores in each group of descriptions, groups weighted.

    Args:
        m: descriptions per class in each group; scores hold the groups one after the other.
        group_weights: one for each group, e.g. (0.5, 0.5).
    """

    def __init__(self, m: int, k: int, group_weights: Sequence[float] = (1.0,)):
        super().__init__()
        _check_k(k, m)
        self.m, self.k = m, k
        self.register_buffer("group_weights", torch.tensor(group_weights), persistent=False)      # (G,)

    def forward(self, scores: Tensor) -> Tensor:
        """(B, C, G*m) -> (B, C)."""
        return topk_mean(scores.unflatten(-1, (-1, self.m)), self.k) @ self.group_weights


class ReweightingMatrix(nn.Module):
    """DVP's PRM: how much each description counts for its class; counted, not learned by gradient.

    Usage: `observe` every training batch, `update` after the epoch.

    Args:
        m: descriptions per class, of all causes together.
        k: best descriptions of the true class that an image votes for.
    Attributes:
        weights: (C, m), rows sum to 1; uniform at first.
    """

    def __init__(self, num_classes: int, m: int, k: int):
        super().__init__()
        _check_k(k, m)
        self.k = k
        self.register_buffer("weights", torch.full((num_classes, m), 1 / m))
        self.register_buffer("counts", torch.zeros(num_classes, m, dtype=torch.int64), persistent=False)

    def forward(self, scores: Tensor) -> Tensor:
        """(B, C, m) -> (B, C)."""
        return torch.linalg.vecdot(scores, self.weights)     # faster than einsum, which makes one product per class

    @torch.no_grad()
    def observe(self, scores: Tensor, labels: Tensor) -> None:
        """Count the k best descriptions of the true classes; scores (B, C, m), labels (B,)."""
        self.counts += count_descriptions(topk_own(scores, labels, self.k), labels, *self.weights.shape)

    def update(self) -> None:
        """Weights from the counts since the last update; a class that was not seen keeps its own."""
        total = self.counts.sum(dim=1, keepdim=True)                              # (C, 1)
        shares = (self.counts.double() / total.clamp(min=1)).float()
        self.weights.copy_(torch.where(total > 0, shares, self.weights))
        self.counts.zero_()


def _check_k(k: int, m: int) -> None:
    if not 1 <= k <= m:
        raise InputError(f"The number of best descriptions of {m} must be 1 to {m}, got TOP_K {k}.")
