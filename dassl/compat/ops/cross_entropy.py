"""Cross-entropy with smoothed labels."""
import torch.nn.functional as F
from torch import Tensor


def cross_entropy(input: Tensor, target: Tensor, label_smooth: float = 0, reduction: str = "mean") -> Tensor:
    """Of (B, C) scores and (B,) labels; every class gets label_smooth / C. `reduction` is "mean", "sum" or "none"."""
    return F.cross_entropy(input, target, label_smoothing=label_smooth, reduction=reduction)
