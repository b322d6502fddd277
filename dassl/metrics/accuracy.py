"""Top-k accuracy."""
from __future__ import annotations

from torch import Tensor


def compute_accuracy(output: Tensor | tuple[Tensor, ...], target: Tensor, topk: tuple[int, ...] = (1,)) -> list[Tensor]:
    """Share of images whose label is among the k highest scores.

    Args:
        output: (B, C) scores; of a tuple the first item.
        target: (B,) int64.
        topk: any ks; one beyond C counts as C.
    Returns:
        One (1,) tensor per k, percent.
    """
    output = output[0] if isinstance(output, (tuple, list)) else output
    ranked = output.topk(min(max(topk), output.shape[1]), dim=1).indices          # (B, max k)
    right = ranked.eq(target[:, None])                                            # (B, max k)
    return [right[:, :k].any(dim=1).float().mean(0, keepdim=True) * 100 for k in topk]
