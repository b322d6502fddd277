"""Curves for TensorBoard, which a run can do without: a disk that takes no more of them is told once."""
from __future__ import annotations

import logging
import threading

logger = logging.getLogger(__name__)


class Scalars:
    """A SummaryWriter that a fault closes instead of ending the run; `add_scalar` then does nothing."""

    def __init__(self, folder: str):
        from torch.utils.tensorboard import SummaryWriter

        self.folder, self._writer = folder, None
        _without_traceback_of_its_thread()
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
        logger.warning("No more curves for TensorBoard: %s cannot be written (%s). The run goes on", self.folder, error)
        self._writer = None


def _without_traceback_of_its_thread() -> None:
    """What stops the writer's thread is raised where the writer is used next; it need not be printed as well."""
    former = threading.excepthook
    if getattr(former, "of_scalars", False):
        return

    def hook(args) -> None:
        if type(args.thread).__name__ != "_AsyncWriterThread":
            former(args)

    hook.of_scalars = True
    threading.excepthook = hook
