"""A data loader whose workers stay between epochs."""
from __future__ import annotations

import os
import signal
import threading
import weakref
from collections.abc import Iterator

from torch.utils.data import DataLoader

from .datasets.base_dataset import Datum


def obey_parent_only(worker: int) -> None:
    """A signal to the whole process group (timeout, Slurm, docker) is the parent's, which ends its workers itself."""
    if hasattr(signal, "sigwaitinfo"):              # which names the sender; macOS and Windows lack it
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_await_parent, daemon=True).start()


def _await_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


class Loader(DataLoader):
    """A DataLoader whose kept workers behave as new ones would.

    They see a dataset that was changed, also in place; the loader can be copied while it has some; a pass that is begun
    while another is running is independent of it. Public code gives images other labels between epochs, takes some out,
    exchanges `loader.dataset.transform`, copies loaders, and asks for `next(iter(loader))` within a loop over it.
    """

    _known: tuple[dict, int] | None = None
    _latest: weakref.ref | None = None              # the latest pass with the kept workers

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **{"worker_init_fn": obey_parent_only, **kwargs})

    def __iter__(self) -> Iterator:
        if not self.persistent_workers:
            return super().__iter__()
        now = _state(self.dataset)
        if self._known is not None and _differ(self._known, now):
            self._iterator = self._latest = None
        self._known = now
        if hasattr(self.dataset, "before_workers"):
            self.dataset.before_workers()
        latest = self._latest and self._latest()
        if latest is not None and latest.gi_frame is not None:
            return self._get_iterator()             # workers of its own, that end with it
        latest = _each(super().__iter__())
        self._latest = weakref.ref(latest)
        return latest

    def _get_iterator(self):
        """Workers are made with signals blocked: one may come before `obey_parent_only` has run in all of them."""
        if self.worker_init_fn is not obey_parent_only or not hasattr(signal, "sigwaitinfo"):
            return super()._get_iterator()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGHUP})
        try:
            return super()._get_iterator()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_iterator": None, "_latest": None}


def end_workers(loader) -> None:
    """End a loader's worker processes, if it keeps any: the garbage collector may take five seconds for each."""
    if getattr(loader, "_iterator", None) is not None:
        loader._iterator = None


def _each(batches: Iterator) -> Iterator:
    yield from batches


def _state(dataset) -> tuple[dict, int]:
    """Its attributes, and a number that changes with its list of images, their labels included."""
    items = getattr(dataset, "data_source", None)
    return dict(getattr(dataset, "__dict__", {})), hash(tuple(map(_mark, items if isinstance(items, list) else ())))


def _mark(item) -> tuple | int:
    return (item.impath, item.label, item.domain) if isinstance(item, Datum) else id(item)


def _differ(before: tuple[dict, int], now: tuple[dict, int]) -> bool:
    then, new = before[0], now[0]
    return before[1] != now[1] or then.keys() != new.keys() or any(then[name] is not new[name] for name in new)
