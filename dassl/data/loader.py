"""Data loaders whose workers stay between epochs, and batches that are made as a whole."""
from __future__ import annotations

import os
import signal
import threading
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from .datasets.base_dataset import Datum


class MadeBatch(Sequence):
    """A batch that was made as a whole; as a sequence, its images one by one, for whom it may concern.

    Args:
        whole: {name: B values, as a tensor or a list}; a list of tensors holds several copies of every image.
    """

    def __init__(self, whole: dict):
        self.whole = whole

    def __len__(self) -> int:
        return len(self.whole["label"])

    def __getitem__(self, i: int) -> dict:
        return {name: _of_image(values, i) for name, values in self.whole.items()}


def _of_image(values, i: int):
    if isinstance(values, list) and isinstance(values[0], Tensor):
        return [copy[i] for copy in values]
    return values[i].item() if isinstance(values, Tensor) and values.ndim == 1 else values[i]


def collate(batch: Sequence):
    """What a dataset gave for the indices of a batch -> the batch."""
    return batch.whole if isinstance(batch, MadeBatch) else default_collate(batch)


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
    while another goes on is independent of it. Public code gives images other labels between epochs, takes some out,
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
        latest = self._latest and self._latest()
        if latest is not None and latest.gi_frame is not None:
            return self._get_iterator()             # workers of its own, that end with it
        latest = _each(super().__iter__())
        self._latest = weakref.ref(latest)
        return latest

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
    return dict(getattr(dataset, "__dict__", {})), hash(tuple(map(_told, items if isinstance(items, list) else ())))


def _told(item) -> tuple | int:
    return (item.impath, item.label, item.domain) if isinstance(item, Datum) else id(item)


def _differ(before: tuple[dict, int], now: tuple[dict, int]) -> bool:
    then, new = before[0], now[0]
    return before[1] != now[1] or then.keys() != new.keys() or any(then[name] is not new[name] for name in new)


class ThreadedLoader(Loader):
    """The same batches in the same order as DataLoader's; `num_workers` threads make them instead of processes.

    Nothing is copied between processes and the images are decoded once for all threads. Only for datasets that leave
    the interpreter's lock, as Pillow and numpy do, and which draw from no global random stream: where the transform
    was replaced by one that does, processes take over.
    """

    def __iter__(self) -> Iterator[dict]:
        return self._threaded() if self.dataset.batched_slots() is not None else super().__iter__()

    def _threaded(self) -> Iterator[dict]:
        ahead, pool = deque(), ThreadPoolExecutor(self.num_workers, thread_name_prefix="batches")
        try:
            for indices in self.batch_sampler:
                ahead.append(pool.submit(self._make, indices))
                if len(ahead) > self.num_workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _make(self, indices: list[int]):
        batch = self.collate_fn(self.dataset.__getitems__(indices))
        return {name: _pinned(value) for name, value in batch.items()} if self.pin_memory else batch


def _pinned(value):
    """Tensors, also of a list, in memory that a GPU copies from directly."""
    if isinstance(value, list):
        return [_pinned(v) for v in value]
    return value.pin_memory() if isinstance(value, Tensor) else value
