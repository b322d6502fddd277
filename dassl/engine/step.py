"""The end of a training step: one read from the device tells whether everything is finite, then models are updated."""
from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from dassl.optim.loss_scaler import LossScaler

from .hooks.parallel import average_gradients


def finish(trainer, terms: dict[str, Tensor], summary: dict[str, Tensor], names: list[str] | None,
           scaler: LossScaler) -> dict[str, float]:
    """See `TrainerBase.finish_step`."""
    learners = [learner for learner in trainer.registered(names) if learner.optim is not None]
    average_gradients(trainer, names)
    learned = learned_parameters(learner.model for learner in trainer.registered(names))
    gradients = {name: p.grad for name, p in learned.items() if p.grad is not None}
    terms, summary, of_gradients, of_learned = read_together(terms, summary, gradients, learned)
    finite = trainer.on_nan.judge(trainer, terms, of_gradients, of_learned, scaler.may_skip)
    if finite:
        scaler.unscale(p.grad for learner in learners for group in learner.optim.param_groups
                       for p in group["params"] if p.grad is not None)
        for learner in learners:
            learner.optim.step()
    scaler.update(finite)
    return summary


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
