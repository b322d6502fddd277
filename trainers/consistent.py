"""CyCLIP's two consistency losses, added to those of any method, and in the trainer of its own.

Source: CyCLIP (Goel et al., NeurIPS 2022); see `trainers.parts.pairs`.
"""
from __future__ import annotations

from torch import Tensor

from dassl.utils import UserError
from trainers.errors import as_user_error
from trainers.parts.pairs import consistency
from trainers.parts.prompted_model import Output


class Consistent:
    """For a `PromptTrainer`, in front of it."""

    @property
    def consistency_weights(self) -> tuple[float, float]:
        """Of the in-modal and the cross-modal loss, which are added to the method's own."""
        return self.cfg.TRAIN.get("CYCLIP_IN_MODAL", 0.0), self.cfg.TRAIN.get("CYCLIP_CROSS_MODAL", 0.0)

    def check_consistency(self, steps: type) -> None:
        """Raises UserError where weights are set and the method does not take the steps of the class `steps`."""
        if not any(self.consistency_weights):
            return
        own = [name for name in ("forward_backward", "gradients")
               if getattr(type(self), name) is not getattr(steps, name)]
        if self.learns != "steps" or own:
            raise UserError("TRAIN.CYCLIP_IN_MODAL and CYCLIP_CROSS_MODAL add losses to those of a training step, and "
                            f"{type(self).__name__} {'takes steps of its own' if own else 'takes none'}. Set both to "
                            "0.")
        self.one_process_only = self.one_process_only or "CyCLIP's losses compare the images of a whole batch"

    def consistency(self, out: Output, batch: dict) -> dict[str, Tensor]:
        """The losses of a batch's pairs of an image and a text, those that have a weight."""
        if not any(weights := self.consistency_weights):
            return {}
        with as_user_error():
            return consistency(*self.pairs(out, batch), weights)
