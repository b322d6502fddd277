"""What a method chooses on labelled images: on validation images, on test images as some papers do, or not at all."""
from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from dassl.config import CfgNode
from dassl.utils import UserError
from trainers.cached_features import CachedFeatures
from trainers.features import FeatureTrainer

logger = logging.getLogger(__name__)
CHOICES = ("val", "test", "fixed")
_IMAGES = {"val": "validation images", "test": "test images, as published: an accuracy on them is too high"}
Choice = TypeVar("Choice")


class SelectingTrainer(FeatureTrainer):
    """`options.SELECT` says where it chooses: "val", "test", which the log and results.json then say, or "fixed".

    Attributes:
        chosen: what was chosen on which images; "" before that.
    """

    chosen = ""

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        if (select := cfg.TRAINER[self.section].SELECT) not in CHOICES:
            raise UserError(f"TRAINER.{self.section}.SELECT must be {', '.join(CHOICES[:-1])} or {CHOICES[-1]}, got "
                            f"{select!r}.")

    def before_train(self) -> None:
        self.check_selection()
        super().before_train()

    def check_selection(self) -> None:
        """Raises UserError where validation images are asked for and there are none but test images."""
        if self.options.SELECT == "val" and (self.val_loader is None or self.val_is_test):
            has = "its test images in their place" if self.val_is_test else "none"
            raise UserError(f"TRAINER.{self.section}.SELECT val needs validation images, and {self.cfg.DATASET.NAME} "
                            f"has {has}. Set it to fixed, or to test for a published protocol that looks at the test "
                            "images.")

    def selection_images(self) -> tuple[Tensor, Tensor]:
        """Features as the head takes them and labels (N,) of the images on which is chosen."""
        features = CachedFeatures(self, self.options.SELECT, joint=self.model.joint)
        view = features.view()
        return F.normalize(view, dim=-1) if self.model.unit_norm else view, features.labels

    def choose(self, what: str, candidates: Iterable[Choice], use: Callable[[Choice], None]) -> Choice:
        """The first of those that score best once `use` was called with it; it is in use afterwards."""
        images, best = self.selection_images(), None
        for candidate in candidates:
            use(candidate)
            score = self.right_answers(*images)
            if best is None or score > best[0]:
                best = score, candidate
        use(best[1])
        self.say_chosen(what, f"{what} {best[1]}", 100 * best[0] / len(images[1]))
        return best[1]

    @torch.no_grad()
    def right_answers(self, features: Tensor, labels: Tensor) -> int:
        return sum(int((self.model.compare(f).logits.argmax(1) == label).sum())
                   for f, label in zip(features.split(4096), labels.split(4096), strict=True))

    def say_chosen(self, what: str, values: str, accuracy: float) -> None:
        """Log and keep what was chosen; accuracy: percent, on the images on which it was."""
        select = self.options.SELECT
        logger.log(logging.WARNING if select == "test" else logging.INFO, "%s: chosen with %.1f%% on the %s", values,
                   accuracy, _IMAGES[select])
        self.chosen = f"{what}: chosen on the {_IMAGES[select]}"

    def run_record_fields(self) -> dict:
        return {**super().run_record_fields(), **({"model_selection": self.chosen} if self.chosen else {})}
