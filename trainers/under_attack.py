"""A trainer as attacks and evaluators see it: images in [0, 1] to logits, normalisation and prompts included."""
from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from dassl.config import CfgNode
from dassl.engine.trainer import SimpleTrainer
from dassl.utils import UserError
from trainers.errors import refusal_as_user_error
from trainers.parts.attack_names import Attack
from trainers.parts.attacks import frozen


class Attackable:
    """Of a built trainer, ours or another's, whose loaders give images in [0, 1], or these with "normalize".

    Raises:
        UserError: a trainer that learns while it is tested, whose answers have no gradient to an image.
    """

    def __init__(self, trainer: SimpleTrainer):
        check_learns_before(type(trainer))
        c = trainer.cfg.INPUT
        self.trainer, self.normalised = trainer, "normalize" in c.TRANSFORMS and not c.NO_TRANSFORM
        self.mean, self.std = (torch.tensor(list(v), device=trainer.device).view(-1, 1, 1)
                               for v in (c.PIXEL_MEAN, c.PIXEL_STD))

    def pixels(self, images: Tensor) -> Tensor:
        """What a loader gives (B, 3, H, W) -> in [0, 1]."""
        return (images * self.std + self.mean).clamp(0, 1) if self.normalised else images

    def from_pixels(self, pixels: Tensor) -> Tensor:
        """Images in [0, 1] -> as the loader would give them."""
        return (pixels - self.mean) / self.std if self.normalised else pixels

    def __call__(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> logits (B, C), with a gradient to the pixels where gradients are on."""
        trainer, images = self.trainer, self.from_pixels(pixels)
        with refusal_as_user_error():
            if hasattr(type(trainer), "predict"):               # one of ours, whose inference records no gradient
                with trainer.mixed.autocast(enabled=trainer.half_towers):
                    return type(trainer).predict(trainer.model, images, trainer.options).float()
            out = trainer.model_inference(images)
        return (out[0] if isinstance(out, (tuple, list)) else out).float()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Inside, nothing of the model records a gradient but the images."""
        with contextlib.ExitStack() as stack:
            for learner in self.trainer.registered():
                stack.enter_context(frozen(learner.model))
            yield


def check_learns_before(method: type) -> None:
    """Raises UserError for a method whose answers have no gradient to its images."""
    if method.adapts:
        raise UserError(f"{method.__name__} learns while it is tested, so that its answers have no gradient to its "
                        "images, and changed images would change what it learns. Attack the method that it begins "
                        "from.")


def check_attack(method: type, cfg: CfgNode) -> None:
    """Raises UserError for a TEST.ATTACK that is none, or of a method that cannot be attacked."""
    if text := cfg.TEST.get("ATTACK", ""):
        with refusal_as_user_error():
            Attack.parse(text)
        check_learns_before(method)


def attacked(trainer: SimpleTrainer, attack: str, images: Tensor, labels: Tensor) -> Tensor:
    """A test batch as the loader gives it, with its images attacked; draws are those of the run's seed, for each batch.

    Raises:
        UserError: no gradient to the images, or images that are not in [0, 1].
    """
    model = Attackable(trainer)
    # A test records no gradient, and its tensors may be those of inference mode, which autograd does not take.
    with refusal_as_user_error(), torch.inference_mode(False), torch.enable_grad(), model.frozen():
        pixels, labels = model.pixels(images.clone()), labels.clone()
        delta = Attack.parse(attack)(model, pixels, labels, max(trainer.cfg.SEED, 0))
        return model.from_pixels(pixels + delta).detach()


class UnderAttack:
    """For a `PromptTrainer`, in front of it: TEST.ATTACK."""

    def parse_batch_train(self, batch: dict) -> tuple[Tensor, Tensor]:
        return super().parse_batch_test(batch)

    def parse_batch_test(self, batch: dict) -> tuple[Tensor, Tensor]:
        """On the device; attacked as TEST.ATTACK says, unless a training is under way."""
        images, labels = super().parse_batch_test(batch)
        attack = "" if self.is_training else self.cfg.TEST.get("ATTACK", "")
        return (attacked(self, attack, images, labels) if attack else images), labels

    def run_record_fields(self) -> dict:
        attack = self.cfg.TEST.get("ATTACK", "")
        return {**super().run_record_fields(), **({"attack": attack} if attack else {})}
