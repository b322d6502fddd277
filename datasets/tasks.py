"""Several datasets as one: DATASET.TASKS names them, and each image's domain is the number of its task."""
from __future__ import annotations

from collections import defaultdict

from dassl.data.datasets import DATASET_REGISTRY, DatasetBase
from dassl.data.datasets.union import UnionDataset
from dassl.utils import UserError
from dassl.utils.registry import nearest

SAME_NAMES = ("refuse", "keep")


@DATASET_REGISTRY.register()
class Tasks(UnionDataset):
    """The classes of all tasks, one behind the other; the draw of each is that of a run on it alone.

    Attributes:
        test_domains, val_domains: the tasks' names, so that results are also those of each task.
    """

    dataset_dir = "tasks"

    def __init__(self, cfg):
        names = list(cfg.DATASET.TASKS)
        known = [name for name in DATASET_REGISTRY.registered_names() if name != type(self).__name__]
        if not names:
            raise UserError("DATASET.TASKS is empty. Name the datasets that are learned together, such as "
                            "('Digits', 'Shapes').")
        for name in names:
            if name not in known:
                raise UserError(f"There is no dataset {name!r} for DATASET.TASKS.{nearest(name, known)}")
        if twice := [name for i, name in enumerate(names) if name in names[:i]]:
            raise UserError(f"DATASET.TASKS names {twice[0]} twice. Name each dataset once.")
        if (choice := cfg.DATASET.SAME_NAMES) not in SAME_NAMES:
            raise UserError(f"DATASET.SAME_NAMES must be {' or '.join(SAME_NAMES)}, got {choice!r}.")
        datasets = [_one(cfg, name) for name in names]
        if choice == "refuse":
            _refuse_same_names(names, datasets)
        super().__init__(datasets)
        self.test_domains = self.val_domains = names
        self.val_is = f"the validation splits of {', '.join(names)}"


def _one(cfg, name: str) -> DatasetBase:
    cfg = cfg.clone()
    cfg.defrost()
    cfg.DATASET.NAME = name
    try:
        dataset = DATASET_REGISTRY.get(name)(cfg)
    except UserError as error:
        raise type(error)(f"The task {name} of DATASET.TASKS: {error}") from error
    for split in ("train_x", "test"):
        if not getattr(dataset, split):
            raise UserError(f"The task {name} of DATASET.TASKS has no {'training' if split == 'train_x' else 'test'} "
                            "images. Leave it out, or complete it.")
    return dataset


def _refuse_same_names(names: list[str], datasets: list[DatasetBase]) -> None:
    tasks: dict[str, list[str]] = defaultdict(list)
    for name, dataset in zip(names, datasets, strict=True):
        for classname in dataset.classnames:
            tasks[classname.lower().replace("_", " ")].append(name)
    if shared := {classname: of for classname, of in tasks.items() if len(set(of)) > 1}:
        classname, of = next(iter(shared.items()))
        raise UserError(f"{len(shared)} class name{'s are' if len(shared) > 1 else ' is'} in several tasks, first "
                        f"{classname!r} in {' and '.join(dict.fromkeys(of))}: no text can tell them apart. Rename one, "
                        "or set DATASET.SAME_NAMES keep: each image is then compared with the classes of its own task.")
