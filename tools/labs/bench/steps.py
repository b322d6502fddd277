"""One step by the trainers themselves, on our towers or the field's; hooks tell which part of it is running."""
from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

from tools.labs.bench.rows import PRM_BEST, PRM_DESCRIPTIONS, Row
from tools.labs.bench.timing import Watch


class Parts:
    """Marks the parts of a trainer's step on a watch, from hooks on its model and image tower, and on optimisers.

    Forward passes that a backward pass repeats to save memory count as backward.
    """

    def __init__(self, trainer):
        self.watch, self.forward, self.updating, model = Watch(), bool(trainer.adapts), False, trainer.model
        model.register_forward_pre_hook(self._enter_model)
        model.register_forward_hook(self._leave_model)
        model.clip.visual.register_forward_pre_hook(self._enter_images)
        model.clip.visual.register_forward_hook(self._leave_images)

    def _enter_model(self, *_) -> None:
        self.forward = True

    def _leave_model(self, *_) -> None:
        self.forward = False
        self.watch.mark("text")

    def _enter_images(self, *_) -> None:
        if self.forward:
            self.watch.mark("text")

    def _leave_images(self, *_) -> None:
        if self.forward:
            self.watch.mark("image")

    def enter_update(self, *_) -> None:
        """At the first optimiser's step."""
        if not self.updating:
            self.watch.mark("backward")
        self.updating = True


class TrainingStep:
    """`forward_backward` of a trainer on a batch that is there."""

    def __init__(self, trainer, batch: dict):
        self.trainer, self.batch, self.parts = trainer, batch, Parts(trainer)

    def __call__(self, watch: Watch) -> float:
        self.parts.watch, self.parts.updating = watch, False
        hook = register_optimizer_step_pre_hook(self.parts.enter_update)
        try:
            loss = self.trainer.forward_backward(self.batch)["loss"]
        finally:
            hook.remove()
        watch.mark("update")
        return loss

    def gradients(self) -> dict[str, Tensor]:
        learner = self.trainer.model.prompt_learner
        return {name: value.grad for name, value in learner.named_parameters()}


class InferenceStep:
    """`model_inference` of a trainer, as the engine's test calls it for every batch but the first."""

    @torch.no_grad()
    def __init__(self, trainer, batch: dict):
        trainer.model_inference(batch["img"])                # text once, and kept
        self.trainer, self.batches, self.parts = trainer, [batch["img"]], Parts(trainer)

    @torch.no_grad()
    def __call__(self, watch: Watch) -> Tensor:
        self.parts.watch = watch
        self.trainer.load_test_state(None)
        logits = torch.cat([self.trainer.model_inference(images) for images in self.batches])
        watch.mark("text")
        return logits


class FieldInferenceStep(InferenceStep):
    """The same as published code tests: learned prompts encoded for every batch; what adapts, image by image."""

    def __init__(self, trainer, batch: dict):
        super().__init__(trainer, batch)
        if trainer.adapts:
            self.batches = batch["img"].split(1)
        else:
            trainer.model.prompt_learner.train()             # in which nothing is kept


class PRMProduct:
    """A step of what reweights the scores of descriptions (B, C, m) -> logits (B, C), on one side or the other."""

    def __init__(self, row: Row, device: str, product: Callable[[Tensor], Tensor]):
        scores = torch.rand(row.batch, row.classes, PRM_DESCRIPTIONS, generator=torch.Generator().manual_seed(0))
        self.scores = (scores * 10 + 15).to(device).requires_grad_()            # in the range of CLIP's scaled cosines
        self.labels, self.product = torch.arange(row.batch, device=device) % row.classes, product

    def __call__(self, watch: Watch) -> float:
        self.scores.grad = None
        loss = F.cross_entropy(self.product(self.scores), self.labels)
        watch.mark("text")
        loss.backward()
        value = loss.item()
        watch.mark("backward")
        return value

    def gradients(self) -> dict[str, Tensor]:
        return {"scores": self.scores.grad}


def prm_product(row: Row, device: str) -> Callable[[Tensor], Tensor]:
    """The reweighting with the entries that are not zero."""
    from trainers.parts.label_mapping import ReweightingMatrix

    return ReweightingMatrix(row.classes, PRM_DESCRIPTIONS, PRM_BEST).to(device)


def field_prm_product(row: Row, device: str) -> Callable[[Tensor], Tensor]:
    """The same with the whole matrix (C*m, C), of which one entry in C is not zero. Source: DVP, tools.py."""
    C, m = row.classes, PRM_DESCRIPTIONS
    matrix = torch.zeros(C * m, C, device=device)
    matrix[torch.arange(C * m), torch.arange(C).repeat_interleave(m)] = 1 / m
    return lambda scores: scores.flatten(1) @ matrix
