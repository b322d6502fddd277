"""What a training does at a step whose numbers are not finite: stop, leave the step out, or repeat it in float32."""
from __future__ import annotations

import logging
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from dassl.utils import distributed
from dassl.utils.errors import UserError
from dassl.utils.registry import nearest

POLICIES = ("stop", "skip", "fp32")
MOST_IN_A_ROW = 10                  # steps left out one after the other before the run stops all the same

logger = logging.getLogger(__name__)


class NotFinite(UserError, FloatingPointError):
    """A loss, a gradient or a learned number that is infinite or NaN."""


class OnNaN:
    """Of one trainer, by TRAIN.ON_NAN.

    Attributes:
        skipped, repeated: steps left out (also by a loss scaler), and repeated in float32, since the training began.
    """

    def __init__(self, trainer):
        self.trainer = trainer
        self.skipped = self.repeated = self._in_a_row = 0

    @property
    def policy(self) -> str:
        cfg = getattr(self.trainer, "cfg", None)
        return cfg.TRAIN.get("ON_NAN", "stop") if cfg is not None else "stop"

    def check(self) -> None:
        """Raises UserError for an unknown TRAIN.ON_NAN, and for one that this run cannot follow."""
        if self.policy not in POLICIES:
            raise UserError(f"TRAIN.ON_NAN (--on-nan) is {', '.join(POLICIES[:-1])} or {POLICIES[-1]}; got "
                            f"{self.policy!r}.{nearest(self.policy, POLICIES)}")
        if self.policy != "stop" and distributed.world_size() > 1:
            raise UserError(f"TRAIN.ON_NAN {self.policy} is for runs of one process: the others would not know of a "
                            "step that one leaves out. Set TRAIN.ON_NAN stop.")

    def step(self, batch) -> dict:
        """The trainer's step on a batch, checked, or what the policy does instead.

        Returns:
            The losses; {} for a step that was left out.
        Raises:
            NotFinite: the policy is to stop, or cannot help.
        """
        trainer = self.trainer
        try:
            losses = trainer._step(batch)
        except NotFinite as error:
            if first_not_finite(trainer._models.values()):      # leaving a step out does not mend what is learned
                raise
            losses = {"skip": self._leave_out, "fp32": self._repeat}.get(self.policy, _stop)(batch, error)
        else:
            self._in_a_row = 0
        if bad := first_not_finite(trainer._models.values()):
            raise NotFinite(trainer.where(f"The update made {bad} infinite or NaN")
                            + " The rate is far too large for this gradient: set a much smaller OPTIM.LR.")
        return losses

    def record(self) -> dict:
        """For results.json."""
        return {"policy": self.policy, "skipped_steps": self.skipped, "fp32_steps": self.repeated}

    def state(self) -> list[int]:
        return [self.skipped, self.repeated, self._in_a_row]

    def load_state(self, state: list[int]) -> None:
        self.skipped, self.repeated, self._in_a_row = state

    def _leave_out(self, batch, error: NotFinite) -> dict:
        self.skipped += 1
        self._in_a_row += 1
        if self._in_a_row > MOST_IN_A_ROW:
            raise NotFinite(f"{self._in_a_row} steps in a row were not finite, so leaving them out (TRAIN.ON_NAN skip) "
                            f"does not help. The last: {error}") from error
        logger.warning("Step left out (TRAIN.ON_NAN skip), number %d: %s", self.skipped, error)
        self.trainer.step_left_out()
        return {}

    def _repeat(self, batch, error: NotFinite) -> dict:
        trainer = self.trainer
        if not hasattr(trainer, "in_float32"):
            raise NotFinite(f"{error} TRAIN.ON_NAN fp32 is for trainers with reduced precision, of which "
                            f"{type(trainer).__name__} says nothing.") from error
        with trainer.in_float32():
            try:
                losses = trainer._step(batch)
            except NotFinite as again:
                raise NotFinite(f"Also when it was repeated in float32 (TRAIN.ON_NAN fp32): {again}") from again
        self.repeated += 1
        logger.warning("Step repeated in float32 (TRAIN.ON_NAN fp32), number %d: %s", self.repeated, error)
        return losses


def first_not_finite(models: Iterable[nn.Module | None], gradients: bool = False) -> str:
    """Name of the first learned parameter with a number that is infinite or NaN (or with such a gradient); "" for none.

    Sums are tested, one number per parameter, so that a GPU is asked once.
    """
    named = [(name, p.grad if gradients else p) for model in models if model is not None
             for name, p in model.named_parameters() if p.requires_grad and (p.grad is not None or not gradients)]
    if not named:
        return ""
    finite = torch.stack([_sum(values) for _, values in named]).isfinite()
    return "" if finite.all() else named[int((~finite).nonzero()[0])][0]


def _sum(values: Tensor) -> Tensor:
    return values.detach().sum(dtype=torch.float64 if values.device.type == "cpu" else torch.float32)


def _stop(batch, error: NotFinite) -> dict:
    raise error
