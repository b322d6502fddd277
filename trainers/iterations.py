"""Training lengths that a paper counts in iterations per shot, as whole epochs."""
from __future__ import annotations

import logging

logger = logging.getLogger(__name__)


def train_for_iterations(trainer, per_shot: int) -> None:
    """Set the trainer's epochs to those that are nearest to `per_shot` iterations for each image of a class.

    Call it once the loaders are built; 0 leaves OPTIM.MAX_EPOCH as it is.
    """
    if not per_shot:
        return
    iterations, batches = per_shot * len(trainer.dm.dataset.train_x) / trainer.num_classes, len(trainer.train_loader_x)
    trainer.cfg = trainer.cfg.clone()
    trainer.cfg.defrost()
    trainer.max_epoch = trainer.cfg.OPTIM.MAX_EPOCH = max(1, round(iterations / batches))
    trainer.cfg.freeze()
    logger.info("%.0f iterations are %d epochs of %d", iterations, trainer.max_epoch, batches)
