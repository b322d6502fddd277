"""Accuracy on validation images after epochs of a run, for a search of settings that ends hopeless runs early.

The file is read by tools/tuning while the run is under way. No test image is looked at.
"""
from __future__ import annotations

from pathlib import Path

from dassl.engine.hooks import Hook
from dassl.utils import UserError, distributed
from tools.tuning.space import FILE, POINTS


class Validating(Hook):
    """Tests on the validation split after about POINTS of the epochs, evenly, but not the last, which is the result."""

    def before_train(self, trainer) -> None:
        if trainer.val_loader is None or trainer.val_is_test:
            has = "has none of its own: they are its test images" if trainer.val_loader else "has none"
            raise UserError(f"Settings are chosen on validation images, and {trainer.cfg.DATASET.NAME} {has}. Give "
                            "it a validation split.")

    def safe_point(self, trainer, epoch: int, batch: int) -> None:
        every = max(1, round(trainer.max_epoch / POINTS))
        if batch or epoch % every or epoch >= trainer.max_epoch:
            return
        accuracy = trainer.engine_domains.mean(trainer.test(split="val"))
        if distributed.rank() == 0:
            with open(Path(trainer.output_dir, FILE), "a", encoding="utf-8") as file:
                file.write(f"{epoch},{accuracy:.4f}\n")
