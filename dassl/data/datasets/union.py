"""Several datasets as one, over the union of their classes."""
from __future__ import annotations

from collections.abc import Sequence

from .base_dataset import DatasetBase, Datum


class UnionDataset(DatasetBase):
    """The images of several tasks; labels of the second follow those of the first, and so on.

    `domain` of each item, and so of a batch, is the number of its task.

    Attributes:
        task_of_class: (C) the task of each class.
    """

    def __init__(self, datasets: Sequence[DatasetBase]):
        self.task_of_class = [task for task, dataset in enumerate(datasets) for _ in range(dataset.num_classes)]
        offsets = [self.task_of_class.index(task) for task in range(len(datasets))]

        def joined(split: str) -> list[Datum]:
            return [Datum(item.impath, item.label + offset, task, item.classname)
                    for task, (dataset, offset) in enumerate(zip(datasets, offsets, strict=True))
                    for item in getattr(dataset, split) or ()]

        super().__init__(**{split: joined(split) for split in ("train_x", "val", "test")})
