"""Before the first step: settings that contradict a resumed run or a short one, and images that no epoch sees."""
from __future__ import annotations

import logging

from torch.utils.data import SequentialSampler

from dassl.utils.errors import UserError
from dassl.utils.tools import read_settings

logger = logging.getLogger(__name__)


def check_resumed(trainer) -> None:
    """After the state of `cfg.RESUME` was loaded.

    Raises:
        UserError: more epochs were trained there than the run is to have, so that its result would be another's.
    """
    c, folder = trainer.cfg.OPTIM, trainer.cfg.RESUME
    if trainer.start_epoch > trainer.max_epoch:
        raise UserError(f"{folder} has trained {trainer.start_epoch} epochs, and OPTIM.MAX_EPOCH is "
                        f"{trainer.max_epoch}: nothing is left to train. Set OPTIM.MAX_EPOCH to more, or test what it "
                        f"learned with --eval-only --model-dir {folder}.")
    then = read_settings(folder).get("OPTIM", {}).get("MAX_EPOCH")
    if then and trainer.start_epoch and then != c.MAX_EPOCH and c.LR_SCHEDULER in ("cosine", "single_step"):
        logger.warning("%s was to train %d epochs and this run is to train %d: the learning rate follows the schedule "
                       "of %d epochs that was saved, so the result is not that of a training of %d from scratch",
                       folder, then, c.MAX_EPOCH, then, c.MAX_EPOCH)


def tell(trainer) -> None:
    """Log what the training leaves out or never reaches."""
    c = trainer.cfg.OPTIM
    if 0 < c.MAX_EPOCH <= c.WARMUP_EPOCH and any(learner.sched for learner in trainer.registered()):
        rate = c.WARMUP_CONS_LR if c.WARMUP_TYPE == "constant" else c.WARMUP_MIN_LR
        logger.warning("OPTIM.WARMUP_EPOCH %d is all of the %d epochs: the learning rate begins at %g and never is "
                       "OPTIM.LR %g. Set OPTIM.WARMUP_EPOCH 0 for a short trial", c.WARMUP_EPOCH, c.MAX_EPOCH, rate,
                       c.LR)
    if not (left := left_out(trainer)):
        return
    loader = trainer.train_loader_x
    always = isinstance(getattr(loader.batch_sampler.sampler, "sampler", None), SequentialSampler)
    logger.log(logging.WARNING if always else logging.INFO,
               "%d training images in batches of %d: %d are left out of each epoch, %s", len(loader.dataset),
               loader.batch_sampler.batch_size, left,
               "always the same, so nothing is learned from them" if always else "others in each")


def left_out(trainer) -> int:
    """Labelled training images that are in no batch of an epoch; 0 for a trainer that does not train on batches."""
    from .trainer import TrainerX, TrainerXU

    batches = getattr(getattr(trainer, "train_loader_x", None), "batch_sampler", None)
    if type(trainer).run_epoch not in (TrainerX.run_epoch, TrainerXU.run_epoch) or \
            not all(hasattr(batches, name) for name in ("batch_size", "drop_last", "sampler")):
        return 0
    seen = len(batches.sampler)
    seen -= seen % batches.batch_size if batches.drop_last else 0
    return max(0, len(trainer.train_loader_x.dataset) - seen)
