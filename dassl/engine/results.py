"""results.json of a run: what was measured, on which weights, in which time, and whether it is more than chance."""
from __future__ import annotations

import logging
import time

from dassl.evaluation.chance import CHANCE, TOO_FEW, explain, versus_guessing
from dassl.utils import distributed
from dassl.utils.logger import tell
from dassl.utils.run_record import describe_run, write_record

from . import plan
from .trainer_base import TrainerBase

logger = logging.getLogger(__name__)


def write_result(trainer: TrainerBase, metrics: dict, test_seconds: float = 0.0, **tested) -> None:
    """Write what a run that has ended found; warns of an accuracy that guessing reaches too.

    Args:
        metrics: of the evaluator; {} for a training that was not tested, of which it says just that it ended.
        tested: split and num_test, of a run that was tested.
    """
    trained = trainer._phase == "trained"
    total, classes = tested.get("num_test", 0), getattr(trainer, "num_classes", None) or 0
    correct = round(metrics.get("accuracy", 100.0) * total / 100)
    verdict = versus_guessing(correct, total, classes)
    if verdict == TOO_FEW:
        tell(logger, "%s", explain(verdict, correct, total, classes))
    elif words := explain(verdict, correct, total, classes):
        logger.warning(words)
    record = {
        "finished": True, "mode": "train" if trained else "eval-only",
        **describe_run(trainer.cfg, trainer._dataset(), trainer.device), "world_size": distributed.world_size(),
        **tested, "metrics": {k: float(v) for k, v in metrics.items()},
        "epochs": trainer.max_epoch if trained else 0,
        "left_out_of_each_epoch": plan.left_out(trainer) if trained else 0,
        "model_selection": _model_selection(trainer),
        "on_nan": trainer.on_nan.record(), "at_chance": verdict == CHANCE,
        "versus_guessing": verdict,
        "seconds": {"train": round(trainer._train_seconds, 3), "test": round(test_seconds, 3),
                    "total": round(time.monotonic() - trainer._created, 3)},
        **trainer.run_record_fields(),
    }
    logger.info("Results written to %s", write_record(record, trainer.output_dir))


def _model_selection(trainer: TrainerBase) -> str:
    """Which weights were tested: of which epoch, chosen on what, or loaded from which file."""
    if trainer._phase == "trained":
        test = trainer.cfg.TEST
        best = test.FINAL_MODEL == "best_val" and not test.NO_TEST and trainer.max_epoch > 0
        return "the epoch with the best accuracy on the validation split" if best else \
            "the last epoch; nothing was selected on the test split"
    if trainer._loaded:
        return f"none, only tested: {', '.join(trainer._loaded)}"
    own = type(trainer).load_model is not TrainerBase.load_model
    return f"none, only tested: {'what the trainer loads by itself' if own else 'nothing was loaded'}"
