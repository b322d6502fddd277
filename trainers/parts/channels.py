"""APE and APE-T: caches that look at the channels that tell classes apart.

Source: APE (Zhu et al., ICCV 2023), authors' code 70460de, main.py and utils.py. What is easily missed: similarities
are summed over pairs of different classes, texts and images alike; the variance is unbiased, of texts alone. In APE,
features are normalised again over the channels that are kept; a key's weight is in bits, of a softmax without a
temperature. In APE-T, which keeps all channels and moves some, nothing is normalised after it moved.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip import FrozenCLIP, InputError
from trainers.parts.heads import CacheHead


def refined_channels(text_features: Tensor, keys: Tensor, labels: Tensor, count: int, weight: float) -> Tensor:
    """The `count` best channels, best first, of D.

    Args:
        text_features: (C, D); keys: (K, D) of images with labels (K,) in [0, C); unit norm.
        weight: of dissimilarity between classes, 1 - weight of the texts' variance.
    Raises:
        InputError: fewer than two classes, or more channels than there are.
    """
    C, D = text_features.shape
    if C < 2 or not 1 <= count <= D:
        raise InputError(f"Channels that tell classes apart: 1 to {D} of at least 2 classes, got {count} of {C}.")
    of_class = text_features.clone().index_add_(0, labels, keys)                  # (C, D), sums
    counts = 1 + torch.bincount(labels, minlength=C)
    pairs = len(keys) + C
    similarity = (of_class.sum(0).square() - of_class.square().sum(0)) / (pairs ** 2 - counts.square().sum())
    return (weight * -similarity + (1 - weight) * text_features.var(0)).topk(count).indices


class ChannelCacheHead(CacheHead):
    """A cache of `count` channels; see `CacheHead`.

    Attributes:
        channels: (count,) int64. divergence: (K,) in bits, of each key's label from what the texts say of it.
    """

    def __init__(self, clip: FrozenCLIP, num_classes: int, count: int, alpha: float, beta: float):
        super().__init__(clip, num_classes, alpha, beta, scale=100.0)
        self.keys.data = self.keys.new_zeros(0, count)
        self.register_buffer("channels", torch.arange(count, device=self.keys.device))
        self.register_buffer("divergence", self.keys.new_zeros(0), persistent=False)

    @torch.no_grad()
    def fill_refined(self, keys: Tensor, labels: Tensor, text_features: Tensor, weight: float) -> None:
        """Choose channels and keep keys (K, D) with labels (K,), of equal weight."""
        self.channels = refined_channels(text_features, keys, labels, self.keys.shape[1], weight)
        self.fill(self.refined(keys), labels)
        said = (self.keys @ self.refined(text_features).t()).softmax(1)            # (K, C)
        self.divergence = (self.values * ((self.values + 1e-6) / (said + 1e-6)).log2()).sum(1)

    def trust(self, gamma: float) -> None:
        """Weigh keys by exp(gamma * divergence)."""
        self.values = self.values.gt(0) * (gamma * self.divergence).exp()[:, None]

    def refined(self, features: Tensor) -> Tensor:
        """(..., D) -> (..., count), unit norm."""
        return F.normalize(features[..., self.channels], dim=-1)

    def votes(self, image_features: Tensor, beta: float | Tensor) -> Tensor:
        return super().votes(self.refined(image_features), beta)


class ResidualCacheHead(CacheHead):
    """A cache whose classes learn how far some channels of their text and of all their keys move; see `CacheHead`.

    Attributes:
        channels: (count,) int64, those that move. residual: (C, count), by how much; zero at first.
        weights: (K,) of the keys' votes, learned; 1 at first.
    """

    def __init__(self, clip: FrozenCLIP, num_classes: int, count: int, alpha: float, beta: float):
        super().__init__(clip, num_classes, alpha, beta, scale=100.0)
        self.residual = nn.Parameter(self.keys.new_zeros(num_classes, count))
        self.weights = nn.Parameter(self.keys.new_zeros(0))
        self.register_buffer("channels", torch.arange(count, device=self.keys.device))

    def make_room(self, size: int) -> None:
        super().make_room(size)
        if len(self.weights) != size:
            self.weights = nn.Parameter(self.weights.new_ones(size))

    @torch.no_grad()
    def fill_moving(self, keys: Tensor, labels: Tensor, text_features: Tensor, weight: float) -> None:
        """Keep keys (K, D) with labels (K,), and choose channels; `weight` as in `refined_channels`."""
        self.fill(keys, labels)
        self.channels = refined_channels(text_features, keys, labels, self.residual.shape[1], weight)

    def moves(self) -> Tensor:
        """(C, D)"""
        nowhere = self.residual.new_zeros(len(self.residual), self.keys.shape[1])
        return nowhere.index_copy(1, self.channels, self.residual)

    def cosines(self, image_features: Tensor, text_features: Tensor, clip: FrozenCLIP) -> Tensor:
        return super().cosines(image_features, text_features + self.moves(), clip)

    def votes(self, image_features: Tensor, beta: float | Tensor) -> Tensor:
        affinity = image_features @ (self.keys + self.values @ self.moves()).t()                  # (B, K)
        return torch.exp(-beta * (1 - affinity)) @ (self.values * self.weights[:, None])
