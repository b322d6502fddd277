"""What a run leaves to be read: results.json, predictions.csv and classes.json."""
from __future__ import annotations

import logging
import os.path as osp
import time

from dassl.chance import CHANCE, TOO_FEW, explain, versus_guessing
from dassl.data.datasets import DatasetBase
from dassl.evaluation.predictions import FILE as PREDICTIONS
from dassl.evaluation.predictions import Predictions
from dassl.utils import distributed
from dassl.utils.classes_file import write_classes
from dassl.utils.logger import tell
from dassl.utils.run_record import VERSION, describe_run, write_record

from ..plan import left_out
from ..selection import model_selection
from . import Hook

logger = logging.getLogger(__name__)


class Record(Hook):
    """Times the run from its construction, and collects the answers of a final test."""

    def __init__(self):
        self._created = self._started = time.monotonic()
        self._train_seconds, self._trained = 0.0, False

    def before_train(self, trainer) -> None:
        self._started = time.monotonic()
        if trainer.max_epoch > trainer.start_epoch:
            self._write_classes(trainer)

    def after_train(self, trainer) -> None:
        self._train_seconds, self._trained = time.monotonic() - self._started, True

    def before_test(self, trainer, final: bool) -> None:
        self._final, self._begun, self._count, self._predictions = final, time.monotonic(), 0, Predictions()

    def answered(self, trainer, batch, output, label) -> None:
        self._count += len(label)
        if self._final:
            self._predictions.add(batch, output, label)

    def tested(self, trainer, split: str, results: dict[str, float]) -> None:
        if self._final:
            self._predictions.write(osp.join(trainer.output_dir, PREDICTIONS), trainer.lab2cname)
            self._write_classes(trainer)
            self._write_results(trainer, results, time.monotonic() - self._begun, split=split, num_test=self._count,
                                per_class=dict(getattr(trainer.evaluator, "per_class", {})))

    def untested(self, trainer) -> None:
        self._write_results(trainer, {})

    def tested_itself(self, trainer, results: dict[str, float]) -> None:
        self._write_classes(trainer)
        self._write_results(trainer, results, split=trainer.cfg.TEST.SPLIT, per_class={},
                            num_test=len(getattr(trainer.evaluator, "_y_true", ())))

    def _write_classes(self, trainer) -> None:
        if (dataset := dataset_of(trainer)) is not None:
            write_classes(trainer.output_dir, trainer.cfg, dataset, **trainer.classifier_fields())

    def _write_results(self, trainer, metrics: dict, test_seconds: float = 0.0, **tested) -> None:
        """Write results.json, and warn of an accuracy that guessing reaches too.

        Args:
            metrics: the evaluator's; {} for a training without a test, which only says that it has ended.
            tested: split, num_test and per_class, if there was a test.
        """
        total, classes = tested.get("num_test", 0), getattr(trainer, "num_classes", None) or 0
        correct = round(metrics.get("accuracy", 100.0) * total / 100)
        verdict = versus_guessing(correct, total, classes)
        if verdict == TOO_FEW:
            tell(logger, "%s", explain(verdict, correct, total, classes))
        elif words := explain(verdict, correct, total, classes):
            logger.warning(words)
        record = {
            "version": VERSION, "finished": True, "mode": "train" if self._trained else "eval-only",
            **describe_run(trainer.cfg, dataset_of(trainer), trainer.device), "world_size": distributed.world_size(),
            **tested, "metrics": {k: float(v) for k, v in metrics.items()},
            "epochs": trainer.max_epoch if self._trained else 0,
            "left_out_of_each_epoch": left_out(trainer) if self._trained else 0,
            "model_selection": model_selection(trainer, self._trained),
            "on_nan": trainer.on_nan.record(trainer), "at_chance": verdict == CHANCE, "versus_guessing": verdict,
            "seconds": {"train": round(self._train_seconds, 3), "test": round(test_seconds, 3),
                        "total": round(time.monotonic() - self._created, 3)},
            **trainer.engine_domains.fields(trainer, tested.get("split", "")),
            **trainer.engine_stages.fields(trainer),
            **trainer.run_record_fields(),
            **trainer.recorded,
        }
        logger.info("Results written to %s", write_record(record, trainer.output_dir))


def dataset_of(trainer) -> DatasetBase | None:
    """The run's dataset; None where a trainer loads its data without a manager, or not as a DatasetBase."""
    dataset = getattr(getattr(trainer, "dm", None), "dataset", None)
    return dataset if isinstance(dataset, DatasetBase) else None
