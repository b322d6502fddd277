"""Saves a training every so often, within an epoch too, so that a stopped run resumes exactly where it was.

An epoch's order of images and their augmentations come from the random streams at its start, so these and the number of
finished batches say where it was. `dassl.engine.resume` reads the file.
"""
from __future__ import annotations

import io
import logging
import os.path as osp
import time
from pathlib import Path

import torch

from dassl import stop
from dassl.data.samplers import SeededSampler
from dassl.files.whole import write_whole
from dassl.utils import distributed

from ..resume import FILE, State
from ..streams import random_streams, set_random_streams
from . import Hook

_LEAST_SHARE = 20                   # saving takes at most this part of the time between two savings

logger = logging.getLogger(__name__)


class Autosave(Hook):
    """TRAIN.CHECKPOINT_SECONDS pass between two savings (0: only when the run is asked to end)."""

    def __init__(self):
        self._streams: dict | None = None           # random streams at the start of the current epoch
        self._streams_of = -1                       # that epoch
        self._resumed: State | None = None          # until the first batch of its epoch
        self._next = 0.0

    @property
    def finished_batches(self) -> int:
        """Batches of the coming epoch that were trained before the interruption."""
        return self._resumed.batch if self._resumed else 0

    def resumed(self, state: State) -> None:
        self._resumed = state if state.batch else None

    def before_epochs(self, trainer) -> None:
        self._next = time.monotonic() + _seconds(trainer)

    def begin_epoch(self, trainer) -> None:
        """Before the first batch is drawn: note the random streams, or bring back those of an interrupted epoch."""
        if self._resumed:
            set_random_streams(self._resumed.epoch_start)
            batches = trainer.train_loader_x.batch_sampler
            batches.sampler.skip = self.finished_batches * batches.batch_size
        self._streams, self._streams_of = random_streams(), trainer.epoch

    def begin_step(self) -> None:
        """A batch was drawn: after the first of an interrupted epoch, the random streams are those of its last step."""
        if self._resumed:
            set_random_streams(self._resumed.training)
            self._resumed = None

    def safe_point(self, trainer, epoch: int, batch: int) -> None:
        """Save if it is time; end if the run is asked to.

        Raises:
            Terminated: after a signal.
        """
        if distributed.rank() > 0:                  # the first process saves and ends; the others hear of it
            return
        due = _seconds(trainer) > 0 and time.monotonic() >= self._next
        if (due or stop.requested()) and hasattr(trainer, "output_dir") \
                and (not batch or self._resumes_within(trainer, epoch)):
            self.save(trainer, epoch, batch)
        stop.check()

    def finished(self, trainer) -> None:
        Path(trainer.output_dir, FILE).unlink(missing_ok=True)

    def _resumes_within(self, trainer, epoch: int) -> bool:
        batches = getattr(trainer.train_loader_x, "batch_sampler", None)
        return trainer.resumes_within_epoch and self._streams_of == epoch \
            and isinstance(getattr(batches, "sampler", None), SeededSampler)

    def save(self, trainer, epoch: int, batch: int) -> None:
        """Now; see `safe_point`."""
        start, file = time.monotonic(), io.BytesIO()
        trainer.on_nan.after_batches(trainer)
        models = {learner.name: learner.state() for learner in trainer.registered()}
        torch.save(vars(State(epoch, batch, models, trainer.training_state(), self._streams)), file)
        try:
            write_whole(osp.join(trainer.output_dir, FILE), file.getvalue())
            logger.info("Saved after epoch %d and %d batches", epoch, batch)
        except OSError as error:
            logger.warning("The state after epoch %d and %d batches could not be saved (%s). Training continues.",
                           epoch, batch, error)
        now = time.monotonic()
        self._next = now + max(_seconds(trainer), _LEAST_SHARE * (now - start))


def _seconds(trainer) -> float:
    return trainer.cfg.TRAIN.get("CHECKPOINT_SECONDS", 0) if hasattr(trainer, "cfg") else 0
