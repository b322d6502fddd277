"""Running values of scalars over the batches of an epoch."""
from __future__ import annotations

from collections import defaultdict

import torch


class AverageMeter:
    """Latest value, sum, count and mean of a scalar.

    Args:
        ema: the mean is exponential, 0.9 old + 0.1 new, instead of over all values.
    """

    def __init__(self, ema: bool = False):
        self.ema = ema
        self.reset()

    def reset(self) -> None:
        self.val = self.avg = self.sum = self.count = 0

    def update(self, val: float | torch.Tensor, n: int = 1) -> None:
        """Adds `val`, which stands for `n` samples."""
        if isinstance(val, torch.Tensor):
            val = val.item()
        self.val = val
        self.sum += val * n
        self.count += n
        self.avg = 0.9 * self.avg + 0.1 * val if self.ema else self.sum / self.count


class MetricMeter:
    """One AverageMeter per name; as text "loss 0.1234 (0.2345) acc 93.7500 (90.0000)": latest and mean."""

    def __init__(self, delimiter: str = " "):
        self.meters: dict[str, AverageMeter] = defaultdict(AverageMeter)
        self.delimiter = delimiter

    def update(self, input_dict: dict[str, float | torch.Tensor] | None) -> None:
        if input_dict is None:
            return
        if not isinstance(input_dict, dict):
            raise TypeError(f"MetricMeter.update takes a dict of name to number; got {type(input_dict).__name__}. "
                            "forward_backward must return such a dict.")
        for name, value in input_dict.items():
            self.meters[name].update(value)

    def __str__(self) -> str:
        return self.delimiter.join(f"{name} {m.val:.4f} ({m.avg:.4f})" for name, m in self.meters.items())
