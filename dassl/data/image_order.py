"""The order in which test images come, and the seed of each, where a method learns from what it is tested on."""
from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from hashlib import sha256
from itertools import groupby, islice
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Sampler

from .datasets.base_dataset import Datum
from .loader import Loader
from .samplers import SeededIndex
from .sharing import ALL, SharedBatches


class ImageOrder(Sampler):
    """One domain after the other; what is drawn for an image depends on `seed` and its file alone, not on the others.

    Args:
        items: of the split.
        seed: of the order and of what is drawn.
        shuffled: each domain in a random order, else as it is listed.
    Attributes:
        skip: images that the next pass, and only that, leaves out at its beginning.
    """

    def __init__(self, items: Sequence[Datum], seed: int, shuffled: bool):
        self.items, self.seed, self.skip, self.shuffled = items, seed, 0, shuffled

    def __iter__(self) -> Iterator[SeededIndex]:
        first, self.skip = self.skip, 0
        order = range(len(self.items))
        if self.shuffled:
            order = random.Random(self.seed).sample(order, len(order))
        order = sorted(order, key=lambda i: self.items[i].domain)
        for index in islice(order, first, None):
            yield SeededIndex(index, self._seed_of(self.items[index]))

    def __len__(self) -> int:
        return len(self.items)

    def _seed_of(self, item: Datum) -> int:
        name = "/".join(Path(item.impath).parts[-2:])           # wherever the dataset lies
        return int.from_bytes(sha256(f"{self.seed} {name}".encode()).digest()[:8], "big") >> 1


class DomainBatches(SharedBatches):
    """Batches in test order; none has images of two domains."""

    def __init__(self, order: ImageOrder, batch_size: int):
        super().__init__(order, batch_size, False, ALL)

    def batches(self) -> Iterator[list[int]]:
        for _, indices in groupby(self.sampler, key=lambda i: self.sampler.items[i].domain):
            indices = list(indices)
            yield from (indices[i:i + self.batch_size] for i in range(0, len(indices), self.batch_size))

    def count(self) -> int:
        domains: dict[int, int] = {}
        for item in self.sampler.items:
            domains[item.domain] = domains.get(item.domain, 0) + 1
        return sum(-(-size // self.batch_size) for size in domains.values())


def in_order(loader: DataLoader, seed: int, shuffled: bool) -> Loader:
    """A loader of the same images, batch size and workers, see `ImageOrder`."""
    seed = max(seed, 0)
    order = ImageOrder(loader.dataset.data_source, seed, shuffled)
    return Loader(loader.dataset, batch_sampler=DomainBatches(order, loader.batch_sampler.batch_size),
                  num_workers=loader.num_workers, persistent_workers=loader.persistent_workers,
                  pin_memory=loader.pin_memory, generator=torch.Generator().manual_seed(seed))
