"""One line that says how far a training is: rewritten in place on a terminal, ten plain lines elsewhere.

DASSL_PROGRESS_SECONDS=s writes plain lines as often as every s seconds instead, of evaluations too:
for a program that reads them.
"""
from __future__ import annotations

import datetime
import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator

from tqdm import tqdm

from dassl.utils.meters import AverageMeter, MetricMeter

from . import Hook

logger = logging.getLogger(__name__)

EVERY = "DASSL_PROGRESS_SECONDS"


class Progress(Hook):
    """Writes a line to log.txt every TRAIN.PRINT_FREQ batches, as Dassl does, and one line to the console for all."""

    def __init__(self):
        self._line: Line | None = None

    def before_train(self, trainer) -> None:
        self._line = None

    def before_batches(self, trainer, first: int) -> None:
        if self._line is None:
            cfg, epoch = trainer.cfg, trainer.num_batches
            self._line = Line(trainer.max_epoch * epoch, trainer.epoch * epoch + first,
                              f"{cfg.TRAINER.NAME} {cfg.DATASET.NAME} seed {cfg.SEED}")
        self._batch_time, self._data_time, self._end = AverageMeter(), AverageMeter(), time.monotonic()

    def before_step(self, trainer) -> None:
        self._data_time.update(time.monotonic() - self._end)

    def after_step(self, trainer, losses: MetricMeter) -> None:
        self._batch_time.update(time.monotonic() - self._end)
        latest = " ".join(f"{name} {m.val:.3f}" for name, m in list(losses.meters.items())[:2])
        self._line.step(trainer.epoch + 1, trainer.max_epoch, latest)
        freq = max(trainer.cfg.TRAIN.PRINT_FREQ, 1)
        if (trainer.batch_idx + 1) % freq == 0 or trainer.num_batches < freq:
            self._log(trainer, losses)

    def safe_point(self, trainer, epoch: int, batch: int) -> None:
        self._end = time.monotonic()

    def after_train(self, trainer) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None

    def _log(self, trainer, losses: MetricMeter) -> None:
        took, data = self._batch_time, self._data_time
        left = trainer.num_batches * (trainer.max_epoch - trainer.epoch) - trainer.batch_idx - 1
        logger.info("epoch [%d/%d] batch [%d/%d] time %.3f (%.3f) data %.3f (%.3f) %s lr %.4e eta %s",
                    trainer.epoch + 1, trainer.max_epoch, trainer.batch_idx + 1, trainer.num_batches, took.val,
                    took.avg, data.val, data.avg, losses,
                    trainer.get_current_lr() if trainer.registered() else float("nan"),
                    datetime.timedelta(seconds=int(took.avg * left)))


class Line:
    """Counts the batches of a whole training.

    Args:
        total: batches of all epochs, `done` of them before this process.
        label: what is trained, e.g. "DAPT Digits seed 1".
    """

    def __init__(self, total: int, done: int, label: str):
        self.total, self.done, self.label, self.start, self.first = total, done, label, time.monotonic(), done
        terminal = sys.stderr.isatty()
        self._bar = tqdm(total=total, initial=done, desc=label, file=sys.stderr, leave=False, dynamic_ncols=True,
                         bar_format="{desc} |{bar:20}| {percentage:3.0f}% {postfix} [{elapsed}<{remaining}]") \
            if terminal else None
        self._next_tenth = 1 + 10 * done // max(total, 1)
        self._pace = _Pace()

    def step(self, epoch: int, max_epoch: int, values: str) -> None:
        """One more batch is done, in `epoch` (from 1); `values` are the latest losses as text."""
        self.done += 1
        if self._bar is not None:
            self._bar.set_postfix_str(f"epoch {epoch}/{max_epoch} {values}", refresh=False)
            self._bar.update()
        elif self._pace.due() if self._pace.seconds is not None else 10 * self.done >= self._next_tenth * self.total:
            self._next_tenth = 1 + 10 * self.done // self.total
            print(f"{self.label}: epoch {epoch}/{max_epoch} {values} eta {self.eta()}", file=sys.stderr, flush=True)

    def eta(self) -> str:
        """Time left at the average rate so far, h:mm:ss."""
        rate = (time.monotonic() - self.start) / max(self.done - self.first, 1)
        return str(datetime.timedelta(seconds=int(rate * (self.total - self.done))))

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def over(batches: Iterable, label: str, learns: bool = False) -> Iterator:
    """The batches of an evaluation, with a line that disappears at its end.

    Args:
        learns: it takes as long as a training: ten plain lines, in log.txt too, say how fast it is and when it ends.
    """
    pace = _Pace()
    if not learns and (pace.seconds is None or sys.stderr.isatty()):
        return iter(tqdm(batches, desc=label, file=sys.stderr, leave=False, disable=not sys.stderr.isatty(),
                         dynamic_ncols=True))
    return _with_lines(batches, label, pace, learns)


def _with_lines(batches: Iterable, label: str, pace: _Pace, learns: bool) -> Iterator:
    total, images, start, tenth = len(batches) if hasattr(batches, "__len__") else 0, 0, time.monotonic(), 1
    sampler = getattr(getattr(batches, "batch_sampler", None), "sampler", ())
    all_images, skipped = len(sampler), getattr(sampler, "skip", 0)
    bar = tqdm(total=all_images, initial=skipped, desc=label, file=sys.stderr, leave=False, unit=" images",
               dynamic_ncols=True) if learns and sys.stderr.isatty() else None
    for number, batch in enumerate(batches, 1):
        yield batch
        size = len(batch["label"]) if learns else 0
        images += size
        words = f"{label}: batch {number}/{total or '?'}"
        if learns:
            rate = images / max(time.monotonic() - start, 1e-9)
            left = datetime.timedelta(seconds=int((all_images - skipped - images) / rate))
            words = f"{label}: image {skipped + images}/{all_images}, {rate:.1f} images/s, {left} left"
        is_tenth = learns and 10 * (skipped + images) >= tenth * all_images
        if is_tenth:
            tenth = 1 + 10 * (skipped + images) // all_images
            logger.info("%s", words)
        if bar is not None:
            bar.update(size)
        elif is_tenth if pace.seconds is None else pace.due():
            print(words, file=sys.stderr, flush=True)
    if bar is not None:
        bar.close()


class _Pace:
    """Whether it is time for another line; the first is always due. `seconds` is None where nobody set a pace."""

    def __init__(self):
        self.seconds = float(os.environ[EVERY]) if os.environ.get(EVERY) else None
        self._last = -float("inf")

    def due(self) -> bool:
        now = time.monotonic()
        if now - self._last < self.seconds:
            return False
        self._last = now
        return True
