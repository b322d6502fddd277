"""Batches made ahead by threads of this process, for images that are in memory already."""
from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from torch import Tensor
from torch.utils.data import DataLoader


class ThreadedLoader(DataLoader):
    """The same batches in the same order as DataLoader's; `num_workers` threads make them instead of processes.

    Nothing is copied between processes and the images are decoded once for all threads. Worthwhile only for datasets
    that leave the interpreter's lock, as Pillow and numpy do, and which draw from no global random stream.
    """

    def __iter__(self) -> Iterator[dict]:
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
