"""The answers to a split. A test that learns may take hours: it is saved every so often, and resumes at its next batch.

What it answered, what it has learned since and the random streams say where it was, so that a resumed test gives the
same numbers to the last bit. Where that lies: test.pth.tar in the run folder, until the test has ended.
"""
from __future__ import annotations

import io
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from dassl import stop
from dassl.files.whole import write_whole
from dassl.utils import distributed
from dassl.utils.errors import UserError
from dassl.utils.run_record import config_hash, fewshot_hash
from dassl.utils.torchtools import load_checkpoint

from .hooks import parallel
from .streams import random_streams, set_random_streams

FILE = "test.pth.tar"
_LEAST_SHARE = 20                   # saving takes at most this part of the time between two savings

logger = logging.getLogger(__name__)


def answers(trainer, loader, split: str) -> Iterator[tuple[dict, Tensor, Tensor]]:
    """Batches of a split, in its order, each with the trainer's output and labels; those of an interrupted test first.

    Raises:
        Terminated: the run was asked to end; what was answered is saved.
    """
    if not trainer.adapts or trainer.is_training:
        yield from parallel.answers(trainer, loader, f"{split} split")
        return
    test, folder = _Test(trainer, loader, split), trainer.cfg.RESUME
    yield from test.resume(folder) if folder else ()
    with stop.at_safe_points():
        for batch, output, label in test.saved_at_errors(parallel.answers(trainer, loader, f"{split} split")):
            test.add(batch, output, label)
            yield batch, output, label
            test.safe_point()


def end(trainer) -> None:
    """The result is written: a saved test is no longer needed."""
    Path(trainer.output_dir, FILE).unlink(missing_ok=True)


class _Test:
    """One pass over a split, as far as it has come."""

    def __init__(self, trainer, loader, split: str):
        self.trainer, self.loader, self.answered = trainer, loader, []
        self.path = Path(trainer.output_dir, FILE)
        items = loader.dataset.data_source
        self.key = {"config": config_hash(trainer.cfg), "split": split, "loaded": list(trainer.loaded_files),
                    "images": fewshot_hash(items, trainer.cfg.DATASET.ROOT)}
        self._wait()

    def add(self, batch: dict, output: Tensor, label: Tensor) -> None:
        kept = {name: batch[name] for name in ("impath", "index", "domain") if name in batch}
        self.answered.append((kept, output.cpu(), label.cpu()))

    def resume(self, folder: str) -> Iterator[tuple[dict, Tensor, Tensor]]:
        """The answers of an interrupted test in a run folder; the loader and all that is learned stand behind them."""
        state = distributed.from_first(_read(Path(folder, FILE), self.key))
        if state is None:
            return
        self.answered = [tuple(answer) for answer in state["answered"]]
        self.loader.batch_sampler.sampler.skip = sum(len(label) for *_, label in self.answered)
        self.trainer.load_test_state(state["learned"])
        set_random_streams(state["streams"])
        logger.info("Resumed from %s: %d images are answered", folder, self.loader.batch_sampler.sampler.skip)
        yield from list(self.answered)

    def saved_at_errors(self, batches: Iterator) -> Iterator:
        """The same batches; what was answered before one that cannot be is not lost."""
        try:
            yield from batches
        except UserError:
            if self.answered and distributed.rank() == 0:
                self.save()
            raise

    def safe_point(self) -> None:
        """Save if it is time; end if the run is asked to."""
        if distributed.rank() > 0:                  # the first process saves and ends; the others hear of it
            return
        if stop.requested() or 0 < self._seconds <= time.monotonic() - self._last:
            self.save()
        stop.check()

    def save(self) -> None:
        start, file = time.monotonic(), io.BytesIO()
        torch.save({"key": self.key, "answered": self.answered, "learned": self.trainer.test_state(),
                    "streams": random_streams()}, file)
        self.trainer.call_hooks("before_writing")
        try:
            write_whole(self.path, file.getvalue())
            logger.info("Saved the test after %d batches", len(self.answered))
        except OSError as error:
            logger.warning("The test could not be saved after %d batches (%s). It continues.", len(self.answered),
                           error)
        self._wait(time.monotonic() - start)

    def _wait(self, took: float = 0.0) -> None:
        self._last = time.monotonic()
        seconds = self.trainer.cfg.TRAIN.get("CHECKPOINT_SECONDS", 0)
        self._seconds = seconds and max(seconds, _LEAST_SHARE * took)


def _read(path: Path, key: dict) -> dict | None:
    """The state of the same test; None where there is none, and a warning where it cannot be used."""
    if not path.exists():
        return None
    try:
        state = load_checkpoint(str(path))
        changed = [name for name in key if state["key"].get(name) != key[name]]
    except (UserError, KeyError, TypeError, AttributeError) as error:
        logger.warning("%s cannot be used (%s). The test starts with its first image.", path, error)
        return None
    if changed:
        logger.warning("%s is of another test (%s). This one starts with its first image.", path, ", ".join(changed))
        return None
    return state
