"""Running values of a training."""
from __future__ import annotations

from collections import defaultdict

import torch


class AverageMeter:
    """Latest value and running average.

    Args:
        ema: average exponentially with weight 0.1 for the latest, instead of over all values.
    """

    def __init__(self, ema: bool = False):
        self.ema = ema
        self.reset()

    def reset(self) -> None:
        self.val = self.avg = self.sum = self.count = 0

    def update(self, val: float, n: int = 1) -> None:
        """`val` is a mean over `n` values."""
        val = val.item() if isinstance(val, torch.Tensor) else val
        self.val = val
        self.sum += val * n
        self.count += n
        self.avg = 0.9 * self.avg + 0.1 * val if self.ema else self.sum / self.count


class MetricMeter:
    """One AverageMeter per name."""

    def __init__(self, delimiter: str = " "):
        self.meters: defaultdict[str, AverageMeter] = defaultdict(AverageMeter)
        self.delimiter = delimiter

    def update(self, input_dict: dict[str, float] | None) -> None:
        """Raises TypeError for anything but a dict; None changes nothing."""
        if input_dict is None:
            return
        if not isinstance(input_dict, dict):
            raise TypeError(f"A MetricMeter is updated with a dict of names and numbers, got "
                            f"{type(input_dict).__name__}.")
        for name, value in input_dict.items():
            self.meters[name].update(value)

    def __str__(self) -> str:
        return self.delimiter.join(f"{name} {m.val:.4f} ({m.avg:.4f})" for name, m in self.meters.items())
