"""Methods that forks of Dassl give its trainers, for files that were written against a fork."""
from __future__ import annotations

import torch
from torch import Tensor


class ForkHooks:
    """A mixin for TrainerBase.

    Source: ProGrad (Zhu et al., ICCV 2023), Dassl.ProGrad.pytorch/dassl/engine/trainer.py.
    """

    def prograd_backward_and_update(self, loss_a: Tensor, loss_b: Tensor, lambda_: float = 1,
                                    names: str | list[str] | None = None) -> None:
        """A step on loss_a; of a parameter whose gradient would raise loss_b, lambda_ times that part is taken off."""
        self._projected_step(loss_a, loss_b, lambda_, names, always=False)

    def vertical_grad_backward_and_update(self, loss_a: Tensor, loss_b: Tensor, lambda_: float = 1,
                                          names: str | list[str] | None = None) -> None:
        """A step on loss_a without lambda_ times the part of its gradient along that of loss_b, whatever its sign."""
        self._projected_step(loss_a, loss_b, lambda_, names, always=True)

    def _projected_step(self, loss_a: Tensor, loss_b: Tensor, lambda_: float, names, always: bool) -> None:
        parameters = [p for learner in self.registered(names) for p in learner.model.parameters()]
        self.model_zero_grad(names)
        self.detect_anomaly(loss_b)
        loss_b.backward(retain_graph=True)
        directions = [p.grad / torch.linalg.norm(p.grad) if p.grad is not None else None for p in parameters]
        self.model_zero_grad(names)
        self.model_backward(loss_a)
        for p, direction in zip(parameters, directions, strict=True):
            if direction is not None and p.grad is not None:
                along = torch.dot(p.grad.flatten(), direction.flatten())
                if always or along < 0:
                    p.grad = p.grad - lambda_ * along * direction
        self.model_update(names)
