"""Which epochs are saved, and which one is tested in the end: the last, or the best on validation images."""
from __future__ import annotations

import logging
from collections.abc import Iterable

from dassl.utils.errors import UserError
from dassl.utils.registry import nearest
from dassl.utils.torchtools import BEST

logger = logging.getLogger(__name__)

_READERS = {"SPLIT": ("test",), "FINAL_MODEL": ("after_epoch", "after_train")}      # Dassl's methods that read the key
_CHOICES = {"SPLIT": ("test", "val"), "FINAL_MODEL": ("last_step", "best_val")}


def check_choices(trainer, base: type) -> None:
    """Raises UserError for an unknown value, unless the trainer overrides a method of `base` that would read it."""
    for key, known in _CHOICES.items():
        value = trainer.cfg.TEST[key]
        own = any(getattr(type(trainer), name) is not getattr(base, name) for name in _READERS[key])
        if value not in known and not own:
            raise UserError(f"TEST.{key} must be {' or '.join(known)}, got {value!r}.{nearest(value, known)}")


def is_best_val(trainer) -> bool:
    """Whether the epoch is chosen on validation images."""
    return trainer.cfg.TEST.FINAL_MODEL == "best_val" and not trainer.cfg.TEST.NO_TEST


def check_best_val(trainer) -> None:
    """Raises UserError where an epoch should be chosen on validation images and there are none but test images."""
    if is_best_val(trainer) and (trainer.val_loader is None or trainer.val_is_test):
        has = "is its test split, on which nothing is chosen" if trainer.val_is_test else \
            "does not exist, and nothing is chosen on the test split"
        raise UserError("TEST.FINAL_MODEL best_val chooses the epoch on a validation split; that of "
                        f"{trainer.cfg.DATASET.NAME} {has}. Set TEST.FINAL_MODEL last_step.")


def save_epoch(trainer) -> None:
    """Checkpoints after an epoch: the best on validation images, every TRAIN.CHECKPOINT_FREQ-th, and the last."""
    frequency, number = trainer.cfg.TRAIN.CHECKPOINT_FREQ, trainer.epoch + 1
    if is_best_val(trainer):
        result = trainer.engine_domains.mean(trainer.test(split="val"))
        if result > trainer.best_result:
            trainer.best_result = result
            trainer.save_model(trainer.epoch, trainer.output_dir, val_result=result, model_name=BEST)
    if number == trainer.max_epoch:
        trainer.save_model(trainer.epoch, trainer.output_dir)
    elif frequency > 0 and number % frequency == 0:
        try:
            trainer.save_model(trainer.epoch, trainer.output_dir)
        except OSError as error:
            logger.warning("No checkpoint of epoch %d (%s). Training continues.", number, error)


def split_to_test(trainer, split: str | None) -> tuple[str, Iterable[dict]]:
    """The split (by default TEST.SPLIT) and its batches; the test split where there are no validation images."""
    split = split or trainer.cfg.TEST.SPLIT
    if split == "val" and trainer.val_loader is None:
        logger.warning("There is no validation split; evaluating on the test split instead")
        split = "test"
    loader = trainer.val_loader if split == "val" else trainer.test_loader
    if loader is None:
        raise UserError(f"{trainer.cfg.DATASET.NAME} has no {split} split to evaluate on.")
    return split, loader


def deploy(trainer) -> None:
    """Load the weights that are tested in the end."""
    if is_best_val(trainer) and trainer.max_epoch > 0:
        logger.info("Deploy the model with the best val performance")
        trainer.load_model(trainer.output_dir)
    else:
        logger.info("Deploy the last-epoch model")


def model_selection(trainer, trained: bool) -> str:
    """For results.json: the weights that were tested, by epoch and what it was chosen on, or by file."""
    if trained:
        images = getattr(getattr(getattr(trainer, "dm", None), "dataset", None), "val_is", "the validation split")
        return f"the epoch with the best accuracy on {images}" \
            if is_best_val(trainer) and trainer.max_epoch > 0 else \
            "the last epoch; nothing was selected on the test split"
    if trainer.loaded:
        return f"none, only tested: {', '.join(trainer.loaded)}"
    own = not type(trainer).load_model.__module__.startswith("dassl.engine.")
    return f"none, only tested: {'what the trainer loads by itself' if own else 'nothing was loaded'}"
