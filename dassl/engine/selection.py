"""Which model of a run is tested (TEST.FINAL_MODEL, TEST.SPLIT): the last epoch's, or the best on validation images."""
from __future__ import annotations

from dassl.utils.errors import UserError
from dassl.utils.registry import nearest

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


def model_selection(trainer, trained: bool) -> str:
    """For results.json: the weights that were tested, by epoch and what it was chosen on, or by file."""
    if trained:
        return "the epoch with the best accuracy on the validation split" \
            if is_best_val(trainer) and trainer.max_epoch > 0 else \
            "the last epoch; nothing was selected on the test split"
    if trainer.loaded:
        return f"none, only tested: {', '.join(trainer.loaded)}"
    own = not type(trainer).load_model.__module__.startswith("dassl.engine.")
    return f"none, only tested: {'what the trainer loads by itself' if own else 'nothing was loaded'}"
