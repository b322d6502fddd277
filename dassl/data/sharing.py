"""Batches of a loader among the processes of one run; all of them draw the same batches from the same random stream."""
from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from torch.utils.data import BatchSampler, DataLoader, Sampler

from dassl.utils import distributed

ALL, IMAGES, BATCHES = "all", "images", "batches"


@dataclass(frozen=True)
class Share:
    """Images start to stop of a batch of `total`; of none, the batch's first image fills it and counts nothing."""

    start: int
    stop: int
    total: int

    @property
    def size(self) -> int:
        return self.stop - self.start

    @classmethod
    def of(cls, total: int) -> Share:
        """This process's, in a batch of `total`; shares differ by at most one image."""
        rank, world = distributed.rank(), distributed.world_size()
        return cls(total * rank // world, total * (rank + 1) // world, total)


class SharedBatches(BatchSampler):
    """A process's part of the batches.

    Attributes:
        split: what is shared out: "images" of every batch, whole "batches" in turn, or, with "all", nothing.
    """

    def __init__(self, sampler: Sampler, batch_size: int, drop_last: bool, split: str):
        super().__init__(sampler, batch_size, drop_last)
        self.split = split

    def batches(self) -> Iterator[list[int]]:
        """All of them, whole."""
        return super().__iter__()

    def count(self) -> int:
        """How many there are."""
        return super().__len__()

    def __iter__(self) -> Iterator[list[int]]:
        for number, batch in enumerate(self.batches()):
            share = Share.of(len(batch))
            if self.split == IMAGES:
                yield batch[share.start:share.stop] or batch[:1]
            elif self.split == ALL or number % distributed.world_size() == distributed.rank():
                yield batch

    def __len__(self) -> int:
        whole = self.count()
        return len(range(distributed.rank(), whole, distributed.world_size())) if self.split == BATCHES else whole

    def share(self, number: int) -> Share:
        """This process's part of the batch of that number, from 0."""
        return Share.of(min(self.batch_size, len(self.sampler) - number * self.batch_size))


def batches_of(sampler: Sampler, batch_size: int, drop_last: bool, is_train: bool) -> dict:
    """Arguments of a DataLoader: DataLoader's own batches, or shared ones where the run has several processes."""
    if distributed.world_size() == 1:
        return {"sampler": sampler, "batch_size": batch_size, "drop_last": drop_last}
    return {"batch_sampler": SharedBatches(sampler, batch_size, drop_last, IMAGES if is_train else ALL)}


def share_of(loader: DataLoader, number: int) -> Share | None:
    """This process's part of a training batch; None where the batch is not shared out."""
    batches = getattr(loader, "batch_sampler", None)
    return batches.share(number) if isinstance(batches, SharedBatches) and batches.split == IMAGES else None


@contextlib.contextmanager
def in_turns(loader: DataLoader) -> Iterator[int]:
    """Inside, each process sees every so many-th batch of the loader; gives how many rounds all batches take.

    A loader of somebody else's making gives 0 rounds and is left alone.
    """
    batches = getattr(loader, "batch_sampler", None)
    if not isinstance(batches, SharedBatches):
        yield 0
        return
    former, world = batches.split, distributed.world_size()
    try:
        batches.split = ALL
        rounds = -(-len(batches) // world)
        batches.split = BATCHES
        yield rounds
    finally:
        batches.split = former
