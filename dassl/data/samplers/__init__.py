"""Orders in which images are drawn, and the seed that each drawn image carries."""
from __future__ import annotations

import copy
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
import torch
from torch.utils.data.sampler import RandomSampler, Sampler, SequentialSampler

from dassl.utils.errors import UserError
from dassl.utils.registry import nearest

__all__ = ["RandomClassSampler", "RandomDomainSampler", "RandomSampler", "SeededIndex", "SeededSampler",
           "SeqDomainSampler", "SequentialSampler", "build_sampler"]


class SeededIndex(int):
    """An index that carries the seed of its image's augmentation."""

    def __new__(cls, index: int, seed: int = 0):
        self = super().__new__(cls, index)
        self.seed = seed
        return self

    def __reduce__(self):
        return SeededIndex, (int(self), self.seed)


class SeededSampler(Sampler):
    """Another sampler's order; the seed of every draw is settled here, so the number of workers changes nothing.

    Args:
        sampler: gives the order.
        seed: of every pass; None takes a new one from torch's global stream at the start of each.

    Attributes:
        skip: draws that the next pass, and only that, leaves out at its beginning.
    """

    def __init__(self, sampler: Sampler, seed: int | None = None):
        self.sampler, self.seed, self.skip = sampler, seed, 0

    def __iter__(self) -> Iterator[SeededIndex]:
        start = int(torch.empty((), dtype=torch.int64).random_()) if self.seed is None else self.seed
        first, self.skip = self.skip, 0
        for position, index in islice(enumerate(self.sampler), first, None):
            yield SeededIndex(index, (start * 1_000_003 + position * 7_919 + int(index)) % 2 ** 63)

    def __len__(self) -> int:
        return len(self.sampler)


def _by(data_source: Sequence, attribute: str) -> dict[int, list[int]]:
    groups = defaultdict(list)
    for index, item in enumerate(data_source):
        groups[getattr(item, attribute)].append(index)
    return groups


class RandomDomainSampler(Sampler):
    """Batches of equally many images from `n_domain` random domains (0: all); ends when a domain runs short."""

    def __init__(self, data_source: Sequence, batch_size: int, n_domain: int):
        self.by_domain = _by(data_source, "domain")
        self.n_domain = n_domain if n_domain > 0 else len(self.by_domain)
        if batch_size % self.n_domain:
            raise UserError(f"The batch size ({batch_size}) is a multiple of the domains in it ({self.n_domain}); "
                            "change DATALOADER.TRAIN_X.BATCH_SIZE or N_DOMAIN.")
        self.per_domain = batch_size // self.n_domain
        self.length = len(list(iter(self)))

    def _choose(self) -> list[int]:
        return random.sample(list(self.by_domain), self.n_domain)

    def __iter__(self) -> Iterator[int]:
        left, order = copy.deepcopy(self.by_domain), []
        while all(len(indices) >= self.per_domain for indices in left.values()):
            for domain in self._choose():
                order += (drawn := random.sample(left[domain], self.per_domain))
                chosen = set(drawn)
                left[domain] = [i for i in left[domain] if i not in chosen]
        return iter(order)

    def __len__(self) -> int:
        return self.length


class SeqDomainSampler(RandomDomainSampler):
    """Batches of equally many images from every domain, domains in order."""

    def __init__(self, data_source: Sequence, batch_size: int):
        super().__init__(data_source, batch_size, 0)

    def _choose(self) -> list[int]:
        return sorted(self.by_domain)


class RandomClassSampler(Sampler):
    """Batches of `n_ins` images from each of batch_size / n_ins random classes; small classes repeat images."""

    def __init__(self, data_source: Sequence, batch_size: int, n_ins: int):
        if batch_size < n_ins or batch_size % n_ins:
            raise UserError(f"The batch size ({batch_size}) is a multiple of the images per class ({n_ins}); change "
                            "DATALOADER.TRAIN_X.BATCH_SIZE or N_INS.")
        self.by_label, self.n_ins, self.n_classes = _by(data_source, "label"), n_ins, batch_size // n_ins
        if len(self.by_label) < self.n_classes:
            raise UserError(f"A batch of {batch_size} with {n_ins} images per class needs {self.n_classes} classes; "
                            f"the dataset has {len(self.by_label)}. Raise N_INS or lower BATCH_SIZE.")
        self.length = len(list(iter(self)))

    def __iter__(self) -> Iterator[int]:
        chunks = {}
        for label, indices in self.by_label.items():
            indices = list(indices)
            if len(indices) < self.n_ins:
                indices = np.random.choice(indices, size=self.n_ins, replace=True).tolist()
            random.shuffle(indices)
            chunks[label] = [indices[i:i + self.n_ins] for i in range(0, len(indices) - self.n_ins + 1, self.n_ins)]
        order, left = [], list(chunks)
        while len(left) >= self.n_classes:
            for label in random.sample(left, self.n_classes):
                order += chunks[label].pop(0)
            left = [label for label in left if chunks[label]]
        return iter(order)

    def __len__(self) -> int:
        return self.length


def build_sampler(sampler_type: str, cfg=None, data_source: Sequence | None = None, batch_size: int = 32,
                  n_domain: int = 0, n_ins: int = 16) -> Sampler:
    """The sampler of that name over `data_source`, a list of Datum."""
    samplers = {
        "RandomSampler": lambda: RandomSampler(data_source),
        "SequentialSampler": lambda: SequentialSampler(data_source),
        "RandomDomainSampler": lambda: RandomDomainSampler(data_source, batch_size, n_domain),
        "SeqDomainSampler": lambda: SeqDomainSampler(data_source, batch_size),
        "RandomClassSampler": lambda: RandomClassSampler(data_source, batch_size, n_ins),
    }
    if sampler_type not in samplers:
        raise UserError(f"Unknown sampler {sampler_type!r}.{nearest(sampler_type, samplers)} There are "
                        f"{', '.join(samplers)}.")
    return samplers[sampler_type]()
