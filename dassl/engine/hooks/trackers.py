"""TRAIN.TRACKERS: curves and results for the trackers of other projects; a run does without one that fails.

Each is an optional package, imported when it is named. TensorBoard's files are written in any case (`hooks.scalars`).
"""
from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from dassl.config.merge import leaves
from dassl.utils import distributed
from dassl.utils.errors import UserError
from dassl.utils.registry import nearest

from . import Hook

logger = logging.getLogger(__name__)


class Tracker(Protocol):
    """What receives the numbers of one run. Opened with the run's name, folder and settings (dotted KEY -> value)."""

    def log(self, values: Mapping[str, float], step: int) -> None: ...

    def close(self) -> None: ...


class Wandb:
    """Weights & Biases; its environment (WANDB_PROJECT, WANDB_MODE ...) counts."""

    def __init__(self, name: str, folder: str, settings: Mapping):
        import wandb

        self._run = wandb.init(name=name, dir=folder, config=dict(settings))

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


class MLflow:
    """MLflow; its environment (MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME ...) counts."""

    def __init__(self, name: str, folder: str, settings: Mapping):
        import mlflow

        self._mlflow = mlflow
        mlflow.start_run(run_name=name)
        pairs = [(key, str(value)[:500]) for key, value in settings.items()]    # MLflow's limits: 500 letters,
        for first in range(0, len(pairs), 100):                                 # 100 settings at a time
            mlflow.log_params(dict(pairs[first:first + 100]))

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._mlflow.log_metrics({name: float(value) for name, value in values.items()}, step=step)

    def close(self) -> None:
        self._mlflow.end_run()


TRACKERS: dict[str, type] = {"wandb": Wandb, "mlflow": MLflow}


def names_of(text: str) -> list[str]:
    """The trackers of TRAIN.TRACKERS: "wandb,mlflow" -> both. TensorBoard may be named and needs no tracker.

    Raises:
        UserError: one that is not known, or whose package is not installed.
    """
    names = list(dict.fromkeys(text.replace(",", " ").split()))
    for name in names:
        if name not in TRACKERS and name != "tensorboard":
            known = ["tensorboard", *TRACKERS]
            raise UserError(f"TRAIN.TRACKERS must name trackers among {', '.join(known)}, got {name!r}."
                            f"{nearest(name, known)}")
        if name in TRACKERS and find_spec(name) is None:
            raise UserError(f"TRAIN.TRACKERS names {name}, which is not installed. Run: pip install {name}")
    return [name for name in names if name in TRACKERS]


class Trackers(Hook):
    """Opens the trackers of TRAIN.TRACKERS when the run begins, and sends them losses, learning rate and results."""

    def __init__(self):
        self._open: dict[str, Tracker] = {}
        self._step, self._begun = 0, False

    def before_train(self, trainer) -> None:
        self._begin(trainer)

    def before_test(self, trainer, final: bool) -> None:
        self._begin(trainer)

    def _begin(self, trainer) -> None:
        cfg = trainer.cfg
        if self._begun or distributed.rank() > 0:
            return
        self._begun = True
        name = f"{cfg.TRAINER.NAME} {Path(cfg.DATASET.get('DIR') or cfg.DATASET.NAME).stem} seed {cfg.SEED}"
        for tracker in names_of(cfg.TRAIN.get("TRACKERS", "")):
            self._try(tracker, lambda tracker=tracker: self._open.update(
                {tracker: TRACKERS[tracker](name, trainer.output_dir, dict(leaves(cfg)))}))

    def after_step(self, trainer, losses) -> None:
        self._step = trainer.epoch * trainer.num_batches + trainer.batch_idx
        if self._open and trainer.batch_idx % max(trainer.cfg.TRAIN.PRINT_FREQ, 1) == 0:
            values = {f"train/{name}": float(meter.val) for name, meter in losses.meters.items()}
            if trainer.registered():
                values["train/lr"] = trainer.get_current_lr()
            self._send(values)

    def tested(self, trainer, split: str, results: dict[str, float]) -> None:
        self._send({f"{split}/{name}": value for name, value in results.items()})
        if not trainer.is_training:
            self._end()

    def untested(self, trainer) -> None:
        self._end()

    def _send(self, values: dict[str, float]) -> None:
        for name, tracker in list(self._open.items()):
            self._try(name, lambda tracker=tracker: tracker.log(values, self._step))

    def _end(self) -> None:
        for name, tracker in list(self._open.items()):
            self._try(name, tracker.close)
        self._open.clear()
        self._begun = False

    def _try(self, name: str, work) -> None:
        """`work()`; what fails in a tracker, for want of a login or a network, ends that tracker and not the run."""
        try:
            work()
        except Exception as error:
            logger.warning("No more values for %s (%s: %s). Training continues.", name, type(error).__name__, error)
            self._open.pop(name, None)
