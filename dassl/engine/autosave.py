"""A run that is stopped goes on where it was, to the bit: one file in its folder, renewed every so often.

Unlike the checkpoints in Dassl's layout it is also written within an epoch: an epoch's order of images and their
augmentations come from the random streams at its start, so these and the number of finished batches say where it was.
"""
from __future__ import annotations

import io
import logging
import os.path as osp
import time
from pathlib import Path

import torch

from dassl.data.samplers import SeededSampler
from dassl.utils import distributed, stop
from dassl.utils.errors import UserError
from dassl.utils.torchtools import load_checkpoint, load_weights
from dassl.utils.whole_files import write_whole

from .streams import random_streams, set_random_streams

FILE = "resume.pth.tar"
_LEAST_SHARE = 20                   # of the time between two savings, one takes at most this part

logger = logging.getLogger(__name__)


class Autosave:
    """Of one trainer, with TRAIN.CHECKPOINT_SECONDS between two savings (0: only when the run is asked to end)."""

    def __init__(self, trainer):
        self.trainer = trainer
        self._streams: dict | None = None           # random streams at the start of the current epoch
        self._streams_of = -1                       # that epoch
        self._pending: dict | None = None           # a loaded state, until its epoch goes on
        self._next = 0.0

    def start(self) -> None:
        """The training begins: the first saving is due after the usual time."""
        self._next = time.monotonic() + self._seconds

    @property
    def finished_batches(self) -> int:
        """Batches of the coming epoch that an earlier process has trained."""
        return self._pending["batch"] if self._pending else 0

    def begin_epoch(self) -> int:
        """Before the first batch is drawn: note the random streams, or bring back those of an interrupted epoch.

        Returns:
            finished_batches, which the loader leaves out.
        """
        trainer, first = self.trainer, self.finished_batches
        if self._pending:
            set_random_streams(self._pending["epoch_start"])
            batches = trainer.train_loader_x.batch_sampler
            batches.sampler.skip = first * batches.batch_size
        self._streams, self._streams_of = random_streams(), trainer.epoch
        return first

    def go_on(self) -> None:
        """The first batch was drawn: the random streams of an interrupted epoch are those after its last step."""
        if self._pending:
            set_random_streams(self._pending["training"])
            self._pending = None

    def safe_point(self, epoch: int, batch: int) -> None:
        """After `epoch` epochs and `batch` batches of the next: save if it is time, end if the run is asked to.

        Raises:
            Terminated, UserError: see `dassl.utils.stop.check`.
        """
        stop.check(after_saving=False)
        if distributed.rank() > 0:                  # the first process saves and ends; the others hear of it
            return
        due = self._seconds > 0 and time.monotonic() >= self._next
        if (due or stop.requested()) and (not batch or self._can_go_on_within(epoch)):
            self._save(epoch, batch)
        stop.check()

    def load(self, directory: str, epoch: int) -> int:
        """Bring back what was saved in a run folder if it is beyond `epoch` finished epochs.

        Returns:
            Finished epochs.
        """
        path = osp.join(directory, FILE)
        if not osp.exists(path):
            return epoch
        try:
            state = load_checkpoint(path)
            position = state["epoch"], state["batch"]
        except (UserError, KeyError, TypeError) as error:
            logger.warning("%s cannot be used (%s); the run goes on from its last checkpoint", path, error)
            return epoch
        if position <= (epoch, 0):
            return epoch
        trainer = self.trainer
        if set(state["models"]) != set(trainer.get_model_names()):
            raise UserError(f"{path} holds {', '.join(state['models'])}, and {type(trainer).__name__} learns "
                            f"{', '.join(trainer.get_model_names())}: it is another trainer's. Resume from a run of "
                            "this one, or start anew in another --output-dir.")
        for name, saved in state["models"].items():
            load_weights(trainer._models[name], saved["state_dict"], path)
            for part, kept in (("optimizer", trainer._optims[name]), ("scheduler", trainer._scheds[name])):
                if kept is not None:
                    kept.load_state_dict(saved[part])
        trainer.load_training_state(state["training"])
        self._pending = state if state["batch"] else None
        logger.info("Resumed from %s after epoch %d and %d batches", path, *position)
        return state["epoch"]

    def remove(self) -> None:
        """The run is complete."""
        Path(self.trainer.output_dir, FILE).unlink(missing_ok=True)

    @property
    def _seconds(self) -> float:
        cfg = getattr(self.trainer, "cfg", None)
        return cfg.TRAIN.get("CHECKPOINT_SECONDS", 0) if cfg is not None else 0

    def _can_go_on_within(self, epoch: int) -> bool:
        batches = getattr(self.trainer.train_loader_x, "batch_sampler", None)
        return self.trainer.resumes_within_epoch and self._streams_of == epoch \
            and isinstance(getattr(batches, "sampler", None), SeededSampler)

    def _save(self, epoch: int, batch: int) -> None:
        trainer, start = self.trainer, time.monotonic()
        models = {name: {"state_dict": model.state_dict(), **{part: kept and kept.state_dict() for part, kept in (
            ("optimizer", trainer._optims[name]), ("scheduler", trainer._scheds[name]))}}
            for name, model in trainer._models.items() if model is not None}
        file = io.BytesIO()
        torch.save({"epoch": epoch, "batch": batch, "models": models, "training": trainer.training_state(),
                    "epoch_start": self._streams}, file)
        try:
            write_whole(osp.join(trainer.output_dir, FILE), file.getvalue())
            logger.info("Saved after epoch %d and %d batches", epoch, batch)
        except OSError as error:
            logger.warning("The state after epoch %d and %d batches could not be saved (%s); training goes on",
                           epoch, batch, error)
        now = time.monotonic()
        self._next = now + max(self._seconds, _LEAST_SHARE * (now - start))
