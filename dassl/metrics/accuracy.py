"""Top-k accuracy."""
from __future__ import annotations

from torch import Tensor


def compute_accuracy(output: Tensor | tuple[Tensor, ...], target: Tensor, topk: tuple[int, ...] = (1,)) -> list[Tensor]:
    """Percent of images whose label (B,) is among the k highest scores (B, C), as a (1,) tensor for each k.

    Of a tuple of outputs the first item counts; a k beyond C counts as C.
    """
    output = output[0] if isinstance(output, (tuple, list)) else output
    ranked = output.topk(min(max(topk), output.shape[1]), dim=1).indices          # (B, max k)
    right = ranked.eq(target[:, None])                                            # (B, max k)
    return [right[:, :k].any(dim=1).float().mean(0, keepdim=True) * 100 for k in topk]
