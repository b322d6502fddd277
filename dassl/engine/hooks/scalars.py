"""Curves for TensorBoard. A run does without them where they cannot be written, and warns once."""
from __future__ import annotations

import logging
import os.path as osp
import threading

from . import Hook

logger = logging.getLogger(__name__)


class Curves(Hook):
    """Writes losses, learning rate and results through `trainer.write_scalar`."""

    def before_train(self, trainer) -> None:
        if trainer.max_epoch > trainer.start_epoch:
            trainer.init_writer(osp.join(trainer.output_dir, "tensorboard"))

    def after_step(self, trainer, losses) -> None:
        step = trainer.epoch * trainer.num_batches + trainer.batch_idx
        for name, meter in losses.meters.items():
            trainer.write_scalar(f"train/{name}", meter.avg, step)
        if trainer.registered():
            trainer.write_scalar("train/lr", trainer.get_current_lr(), step)

    def tested(self, trainer, split: str, results: dict[str, float]) -> None:
        for name, value in results.items():
            trainer.write_scalar(f"{split}/{name}", value, trainer.epoch)


class Scalars:
    """A SummaryWriter that is closed by an error instead of ending the run; `add_scalar` then does nothing."""

    def __init__(self, folder: str):
        from torch.utils.tensorboard import SummaryWriter

        self.folder, self._writer = folder, None
        _silence_writer_threads()
        try:
            self._writer = SummaryWriter(log_dir=folder)
        except OSError as error:
            self._give_up(error)

    def add_scalar(self, tag: str, value: float, step: int | None = None) -> None:
        self._do("add_scalar", tag, value, step)

    def close(self) -> None:
        self._do("close")
        self._writer = None

    def __getattr__(self, name: str):
        if self.__dict__.get("_writer") is None:
            raise AttributeError(name)
        return getattr(self._writer, name)

    def _do(self, name: str, *arguments) -> None:
        if self._writer is None:
            return
        try:
            getattr(self._writer, name)(*arguments)
        except Exception as error:  # of the disk, or what its thread met, such as a clock that jumps
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        logger.warning("No more curves for TensorBoard: %s cannot be written (%s). Training continues.", self.folder,
                       error)
        self._writer = None


def _silence_writer_threads() -> None:
    """What stops the writer's thread is raised where the writer is used next; it need not be printed as well."""
    former = threading.excepthook
    if getattr(former, "of_scalars", False):
        return

    def hook(args) -> None:
        if type(args.thread).__name__ != "_AsyncWriterThread":
            former(args)

    hook.of_scalars = True
    threading.excepthook = hook
