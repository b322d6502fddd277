"""Dassl's methods around a training step; one read from the device tells whether everything in it is finite."""
from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from dassl.optim.loss_scaler import LossScaler

from .hooks.parallel import average_gradients
from .registered import RegisteredModels


class StepMethods(RegisteredModels):
    """Backward, checks and update. `on_nan`, which judges what is not finite, is a hook of the trainer's."""

    _unchecked: dict[str, Tensor] = {}
    gradient_limit = 0.0                # gradients of a step are scaled down to this norm, all together; 0: never

    def finish_step(self, terms: dict[str, Tensor], summary: dict[str, Tensor], names: str | list[str] | None = None,
                    scaler: LossScaler | None = None) -> dict[str, float]:
        """After backward: average the gradients over the processes, check that all is finite, update the models.

        Args:
            terms: of the loss, by their names. summary: any numbers that are worth reading, () or (1,) each.
            names: of the models to update; None for all.
            scaler: what the loss was scaled by; it leaves out a step whose gradients the scale made infinite.
        Returns:
            `summary` as numbers.
        Raises:
            NotFinite: a term, a gradient or a learned number is infinite or NaN; nothing was updated.
        """
        scaler = scaler or LossScaler(enabled=False)
        learners = [learner for learner in self.registered(names) if learner.optim is not None]
        average_gradients(self, names)
        learned = learned_parameters(learner.model for learner in self.registered(names))
        gradients = {name: p.grad for name, p in learned.items() if p.grad is not None}
        terms, summary, of_gradients, of_learned = read_together(terms, summary, gradients, learned)
        finite = self.on_nan.judge(self, terms, of_gradients, of_learned, scaler.may_skip)
        if finite:
            scaler.unscale(p.grad for learner in learners for group in learner.optim.param_groups
                           for p in group["params"] if p.grad is not None)
            if self.gradient_limit:
                nn.utils.clip_grad_norm_([p for p in learned.values() if p.grad is not None], self.gradient_limit)
            for learner in learners:
                learner.optim.step()
        scaler.update(finite)
        return summary

    def step_left_out(self) -> None:
        """Called instead of the rest of a step that was not finite: here, the schedule's step after an epoch."""
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()

    def detect_anomaly(self, loss: Tensor) -> None:
        """Raises NotFinite for a loss that is infinite or NaN."""
        if loss is not self._unchecked.get("loss"):
            self.on_nan.judge(self, read_together({"loss": loss})[0])

    def model_zero_grad(self, names: str | list[str] | None = None) -> None:
        for name in self.get_model_names(names):
            if self._optims[name] is not None:
                self._optims[name].zero_grad()

    def model_backward(self, loss: Tensor) -> None:
        self.detect_anomaly(loss)
        loss.backward()

    def model_update(self, names: str | list[str] | None = None) -> None:
        terms, self._unchecked = self._unchecked, {}
        self.finish_step(terms, {}, names)

    def model_backward_and_update(self, loss: Tensor, names: str | list[str] | None = None) -> None:
        self.model_zero_grad(names)
        self._unchecked = {"loss": loss}            # model_update checks it with the gradients, in one read
        self.model_backward(loss)
        self.model_update(names)

    def get_current_lr(self, names: str | list[str] | None = None) -> float:
        return self._optims[self.get_model_names(names)[0]].param_groups[0]["lr"]


def learned_parameters(models: Iterable[nn.Module | None]) -> dict[str, nn.Parameter]:
    """By name, each once; where two models have the same name for two parameters, the second one's gets a number."""
    found, seen = {}, set()
    for number, model in enumerate(models):
        for name, p in model.named_parameters() if model is not None else ():
            if p.requires_grad and id(p) not in seen:
                seen.add(id(p))
                found[f"{name} ({number})" if name in found else name] = p
    return found


def read_together(*groups: dict[str, Tensor]) -> list[dict[str, float]]:
    """Sums of tensors, by the same names, with one read from the device.

    A sum is finite if every number is, but for sums beyond float32; that of a single number is the number.
    """
    sums = [_sum(values.detach()) for group in groups for values in group.values()]
    numbers = iter(torch.stack([s.to(sums[0].device) for s in sums]).tolist() if sums else ())
    return [{name: next(numbers) for name in group} for group in groups]


def _sum(values: Tensor) -> Tensor:
    """() float64; large tensors of a GPU are added up in float32, in which they are faster."""
    wide = values.dim() == 0 or values.numel() == 1 or values.device.type == "cpu"
    return values.sum(dtype=torch.float64 if wide else torch.float32).double()
