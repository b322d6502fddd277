"""Mixup of two batches. Source: Zhang et al., ICLR 2018."""
import torch
from torch import Tensor


def mixup(x1: Tensor, x2: Tensor, y1: Tensor, y2: Tensor, beta: float, preserve_order: bool = False):
    """Convex combinations of images and of labels, each pair with a share of its own from Beta(beta, beta).

    Args:
        x1, x2: (B, C, H, W). y1, y2: (B, K), one-hot or probabilities.
        preserve_order: the first batch gets the larger share.
    Returns:
        Images (B, C, H, W) and labels (B, K).
    """
    share = torch.distributions.Beta(beta, beta).sample((len(x1), 1, 1, 1))             # (B, 1, 1, 1)
    share = (torch.maximum(share, 1 - share) if preserve_order else share).to(x1.device)
    return x1 * share + x2 * (1 - share), y1 * share[..., 0, 0] + y2 * (1 - share[..., 0, 0])
