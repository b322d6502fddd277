"""DATASET.NAME -> a dataset."""
from __future__ import annotations

from collections.abc import Callable

from dassl.utils.registry import Registry

LATER = dict.fromkeys(("PACS", "VLCS", "DigitsDG", "OfficeHomeDG", "DomainNetDG", "Office31", "OfficeHome", "VisDA17",
                       "DomainNet", "miniDomainNet"), "dassl.data.datasets.domains")
DATASET_REGISTRY = Registry("DATASET", LATER)
CHANGES: dict[str, Callable] = {}       # by name: (dataset, cfg) -> None, called for every dataset that was built


def build_dataset(cfg):
    """The dataset registered as cfg.DATASET.NAME. Raises UserError with the nearest name for an unknown one."""
    dataset = DATASET_REGISTRY.get(cfg.DATASET.NAME)(cfg)
    for change in CHANGES.values():
        change(dataset, cfg)
    return dataset
