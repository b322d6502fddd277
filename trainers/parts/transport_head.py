"""A head that matches the tokens of an image with several prompts of each class by optimal transport.

Source: PLOT (Chen et al., ICLR 2023), trainers/plot.py: Sinkhorn with entropy weight 0.1, uniform marginals and no
gradient through the plan; it stops for the whole batch at once, so logits depend a little on the images that come
together, in tests too.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip import FrozenCLIP, InputError
from trainers.parts import devices


@torch.no_grad()
def sinkhorn(kernel: Tensor, most_rounds: int = 100, threshold: float = 1e-2) -> tuple[Tensor, Tensor]:
    """Transport plans between uniform marginals.

    A CPU stops early. A GPU, which would have to wait for the host to look, and an exported graph go through all rounds
    and change nothing in those after the last.

    Args:
        kernel: (..., M, N), exp(-cost / entropy weight), positive.
        most_rounds: at least 1. threshold: stop when the row factors change by less than this on average over all.
    Returns:
        Plans (..., M, N), whose entries sum to 1, and () the number of rounds.
    """
    M, N = kernel.shape[-2:]
    r, c = torch.ones_like(kernel[..., 0]), torch.ones_like(kernel[..., 0, :])    # (..., M), (..., N)
    rounds = torch.zeros((), dtype=torch.int64, device=kernel.device)
    running = rounds == 0
    for _ in range(most_rounds):
        before = r
        r = torch.where(running, (1 / M) / (kernel @ c.unsqueeze(-1)).squeeze(-1), r)
        c = torch.where(running, (1 / N) / (kernel.transpose(-1, -2) @ r.unsqueeze(-1)).squeeze(-1), c)
        rounds = rounds + running
        running = running & ((r - before).abs().mean() >= threshold)
        if devices.reading_is_free(kernel) and not running:
            break
    return r.unsqueeze(-1) * kernel * c.unsqueeze(-2), rounds


class TransportHead(nn.Module):
    """Logit of a class: scale times the similarity of image tokens and prompts under the best transport between them.

    Args:
        eps: weight of the entropy. most_rounds, threshold: see `sinkhorn`.
        with_pooled: add the logit of the pooled image and the mean of the prompts as the tower gives them, not yet
            normalised (published for ImageNet alone).
    """

    unit_norm = False

    def __init__(self, eps: float = 0.1, most_rounds: int = 100, threshold: float = 1e-2, with_pooled: bool = False):
        super().__init__()
        self.eps, self.most_rounds, self.threshold, self.with_pooled = eps, most_rounds, threshold, with_pooled

    def forward(self, image_features: Tensor, text_features: Tensor, clip: FrozenCLIP) -> tuple[Tensor, dict]:
        """Tokens (B, 1+M, D), the pooled one first, and prompts (N, C, D), neither normalised -> logits (B, C) and
        "plan" (B, C, M, N).
        """
        if image_features.dim() != 3 or text_features.dim() != 3:
            raise InputError("Optimal transport needs all tokens of each image and several prompts of each class, got "
                             f"features of shape {tuple(image_features.shape)} and {tuple(text_features.shape)}.")
        images, texts = F.normalize(image_features, dim=-1), F.normalize(text_features, dim=-1)
        similarity = torch.einsum("bmd,ncd->bcmn", images[:, 1:], texts)          # (B, C, M, N)
        plan, _ = sinkhorn(torch.exp(-(1 - similarity) / self.eps), self.most_rounds, self.threshold)
        logits = clip.scale * (plan * similarity).sum(dim=(-2, -1))
        if self.with_pooled:
            mean = F.normalize(text_features.mean(dim=0), dim=-1)                 # (C, D)
            logits = logits + clip.scale * images[:, 0] @ mean.t()
        return logits, {"plan": plan}


class ViewTransportHead(TransportHead):
    """The same between M views of an image and the prompts; the pooled image is the mean of its views."""

    def forward(self, image_features: Tensor, text_features: Tensor, clip: FrozenCLIP) -> tuple[Tensor, dict]:
        """(M, B, D) and (N, C, D), neither normalised -> logits (B, C) and "plan" (B, C, M, N)."""
        tokens = torch.cat([image_features.mean(dim=0, keepdim=True), image_features])           # (1+M, B, D)
        return super().forward(tokens.transpose(0, 1), text_features, clip)
