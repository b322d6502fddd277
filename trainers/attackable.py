"""A trainer as attacks and evaluators see it: images in [0, 1] to logits, normalisation and prompts included."""
from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from dassl.engine.trainer import SimpleTrainer
from dassl.utils import UserError
from trainers._base import PromptTrainer
from trainers._checks import as_user_error
from trainers.parts.attack_names import Attack
from trainers.parts.attacks import frozen


class Attackable:
    """Of a built trainer, ours or another's, whose loaders give images in [0, 1], or these with "normalize".

    Raises:
        UserError: a trainer that learns while it is tested, whose answers have no gradient to an image.
    """

    def __init__(self, trainer: SimpleTrainer):
        if trainer.adapts:
            raise UserError(f"{type(trainer).__name__} learns while it is tested, so that its answers have no gradient "
                            "to its images, and changed images would change what it learns. Attack the method that it "
                            "begins from.")
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
        with as_user_error():
            if isinstance(trainer, PromptTrainer) \
                    and type(trainer).model_inference is PromptTrainer.model_inference:
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

    def attacked(self, attack: Attack, images: Tensor, labels: Tensor, seed: int = 0) -> Tensor:
        """Images as the loader gives them, attacked; given back as the loader would give them.

        Raises:
            UserError: no gradient to the images, or images that are not in [0, 1].
        """
        # A test runs without gradients, in inference mode at times, whose tensors autograd does not take.
        with as_user_error(), torch.inference_mode(False), torch.enable_grad(), self.frozen():
            pixels = self.pixels(images.clone())
            return self.from_pixels(pixels + attack(self, pixels, labels.clone(), seed)).detach()
