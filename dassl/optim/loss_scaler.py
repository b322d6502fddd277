"""Loss scaling for float16, whose gradients would otherwise vanish.

Source: torch.amp.GradScaler, whose defaults, rule and state dict these are. There the scale is a tensor on the GPU.
Here it is a plain number, because `finish_step` reads anyway whether the gradients are finite.
"""
from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

_FLOAT32 = 2.0 ** 128                   # where float32 ends


class LossScaler:
    """Multiplies the loss by `scale`, divides the gradients by it, and adapts it to them.

    Args:
        enabled: False leaves everything as it is. scale: initial, a power of two so that scaling is exact.
        growth_factor, backoff_factor: of the scale, after `growth_interval` finite steps in a row, and after any other.
    """

    def __init__(self, enabled: bool = True, scale: float = 2.0 ** 16, growth_factor: float = 2.0,
                 backoff_factor: float = 0.5, growth_interval: int = 2000):
        self.enabled, self.scale, self.good_steps = enabled, scale if enabled else 1.0, 0
        self.growth_factor, self.backoff_factor, self.growth_interval = growth_factor, backoff_factor, growth_interval

    @property
    def may_skip(self) -> bool:
        """Whether a gradient that is not finite may be the scale's fault."""
        return self.enabled and self.scale >= 1

    def scaled(self, loss: Tensor) -> Tensor:
        return loss * self.scale if self.enabled else loss

    def unscale(self, gradients: Iterable[Tensor]) -> None:
        """Divide in place."""
        if self.enabled:
            for gradient in gradients:
                gradient.mul_(1 / self.scale)

    def update(self, finite: bool) -> None:
        """Adapt the scale after a step whose gradients were finite, or not."""
        if not self.enabled:
            return
        self.good_steps = self.good_steps + 1 if finite else 0
        if not finite:
            self.scale *= self.backoff_factor
        elif self.good_steps == self.growth_interval:
            self.good_steps, larger = 0, self.scale * self.growth_factor
            self.scale = larger if larger < _FLOAT32 else self.scale

    def state_dict(self) -> dict:
        """{} where it is not enabled."""
        return {"scale": self.scale, "growth_factor": self.growth_factor, "backoff_factor": self.backoff_factor,
                "growth_interval": self.growth_interval, "_growth_tracker": self.good_steps} if self.enabled else {}

    def load_state_dict(self, state: dict) -> None:
        """One of GradScaler's fits too; that of a run without scaling ({}) changes nothing."""
        if self.enabled and state:
            self.scale, self.good_steps = float(state["scale"]), int(state["_growth_tracker"])
            self.growth_factor, self.backoff_factor = state["growth_factor"], state["backoff_factor"]
            self.growth_interval = state["growth_interval"]
