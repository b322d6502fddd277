"""A loss, a gradient or a parameter that is infinite or NaN ends the run, or its step is left out (TRAIN.ON_NAN)."""
from __future__ import annotations

import logging
import math

from dassl.utils import distributed
from dassl.utils.errors import UserError
from dassl.utils.registry import nearest

from ..step import learned_parameters, read_together
from . import Hook

POLICIES = ("stop", "skip")
MOST_IN_A_ROW = 10                  # steps left out one after the other before the run stops all the same

logger = logging.getLogger(__name__)


class NotFinite(UserError, FloatingPointError):
    """A loss, a gradient or a learned number that is infinite or NaN."""


class OnNaN(Hook):
    """Attributes: skipped, the steps left out since the training began, by the policy or by a loss scaler."""

    def __init__(self):
        self.skipped = self._in_a_row = 0
        self._batch, self._judged, self._updated = (), False, ""      # _updated: where the last update was, in words

    @staticmethod
    def policy(trainer) -> str:
        """TRAIN.ON_NAN. Raises UserError where it is unknown, and where this run cannot follow it."""
        policy = trainer.cfg.TRAIN.get("ON_NAN", "stop") if hasattr(trainer, "cfg") else "stop"
        if policy not in POLICIES:
            raise UserError(f"TRAIN.ON_NAN (--on-nan) must be {' or '.join(POLICIES)}, got {policy!r}."
                            f"{nearest(policy, POLICIES)}")
        if policy == "skip" and distributed.world_size() > 1:
            raise UserError("TRAIN.ON_NAN skip is for runs of one process: the others would not know of a step that "
                            "one leaves out. Set TRAIN.ON_NAN stop.")
        return policy

    def step(self, trainer, batch: tuple) -> dict:
        """The trainer's step; {} if it was left out.

        Args:
            batch: arguments of `forward_backward`.
        Raises:
            NotFinite: the policy is to stop, or leaving out steps does not help.
        """
        self._batch, self._judged = batch, False
        try:
            losses = trainer.forward_backward(*batch)
            if not self._judged:                        # the trainer updates its models itself
                self._updated = self._where(trainer)
                self.after_batches(trainer)
        except NotFinite as error:
            if self.policy(trainer) == "stop":
                raise
            self.after_batches(trainer)
            self.skipped += 1
            self._in_a_row += 1
            if self._in_a_row > MOST_IN_A_ROW:
                raise NotFinite(f"{self._in_a_row} steps in a row were not finite, so leaving them out (TRAIN.ON_NAN "
                                f"skip) does not help. The last: {error}") from error
            logger.warning("Step left out (TRAIN.ON_NAN skip), number %d: %s", self.skipped, error)
            trainer.step_left_out()
            return {}
        self._in_a_row = 0
        return losses

    def judge(self, trainer, terms: dict[str, float], gradients: dict[str, float] | None = None,
              learned: dict[str, float] | None = None, may_skip: bool = False) -> bool:
        """Whether a step can be taken: True; or False, and it counts as left out, where a loss scaler will adapt.

        Args:
            terms, gradients, learned: a number for each, finite if the term, gradient or learned parameter is.
                Without `learned`, no update follows.
            may_skip: gradients may be infinite because the loss was scaled.
        Raises:
            NotFinite: it cannot. Names what is not finite, epoch, batch and its images, and says what to try.
        """
        broken, self._judged = _first_bad(learned), self._judged or learned is not None
        bad = _first_bad(terms)
        if broken and (self._updated or not bad):
            self._raise_broken(broken)
        if bad:
            raise NotFinite(f"The loss is infinite or NaN in its term {bad} at {self._where(trainer, images=True)}. "
                            "Try a smaller OPTIM.LR first, then fp32 precision (TRAINER.<NAME>.PREC fp32), a smaller "
                            f"weight on {bad}, or a longer warm-up; --on-nan skip leaves such steps out.")
        if bad := _first_bad(gradients):
            if not may_skip:
                raise NotFinite(f"The gradient of {bad} is infinite or NaN, though the loss is finite, at "
                                f"{self._where(trainer, images=True)}. Nothing was updated. Try fp32 "
                                "precision (TRAINER.<NAME>.PREC fp32) or a smaller OPTIM.LR; --on-nan skip leaves such "
                                "steps out.")
            self.skipped += 1
            return False
        if learned is not None:
            self._updated = self._where(trainer)
        return True

    def after_batches(self, trainer) -> None:
        """Raises NotFinite if a learned number is infinite or NaN; also asked before anything is saved."""
        learned, = read_together(learned_parameters(learner.model for learner in trainer.registered()))
        if broken := _first_bad(learned):
            self._raise_broken(broken)

    def record(self, trainer) -> dict:
        """For results.json."""
        return {"policy": self.policy(trainer), "skipped_steps": self.skipped}

    def state(self) -> list[int]:
        return [self.skipped, self._in_a_row]

    def load_state(self, state: list[int]) -> None:
        self.skipped, self._in_a_row = state[0], state[-1]         # older ones have a third count between these

    def _raise_broken(self, name: str) -> None:
        raise NotFinite(f"The update at {self._updated} made {name} infinite or NaN. The rate is far too large for its "
                        "gradient: set a much smaller OPTIM.LR." if self._updated else
                        f"The learned {name} is infinite or NaN before its first update. Check the weights that the "
                        "run starts from (MODEL.INIT_WEIGHTS) and the initial values that the trainer chooses.")

    def _where(self, trainer, images: bool = False) -> str:
        """Epoch, batch, learning rates and, if asked for, the first images of the batch."""
        paths = [path for part in self._batch if isinstance(part, dict) for path in part.get("impath", [])][:4]
        rates = [f"{learner.optim.param_groups[0]['lr']:.3g}" for learner in trainer.registered()
                 if learner.optim is not None]
        return (f"epoch {trainer.epoch + 1}, batch {trainer.batch_idx + 1} of {trainer.num_batches} (learning rate "
                f"{', '.join(rates) or 'unknown'}{'; images ' + ', '.join(paths) if images and paths else ''})")


def _first_bad(numbers: dict[str, float] | None) -> str:
    return next((name for name, number in (numbers or {}).items() if not math.isfinite(number)), "")
