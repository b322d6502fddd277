"""DATASET.NAME -> a dataset."""
from __future__ import annotations

from dassl.utils.registry import Registry

LATER = dict.fromkeys(("PACS", "VLCS", "DigitsDG", "OfficeHomeDG", "DomainNetDG", "Office31", "OfficeHome", "VisDA17",
                       "DomainNet", "miniDomainNet"), "dassl.data.datasets.domains")
DATASET_REGISTRY = Registry("DATASET", LATER)


def build_dataset(cfg):
    """The dataset registered as cfg.DATASET.NAME. Raises UserError with the nearest name for an unknown one."""
    return DATASET_REGISTRY.get(cfg.DATASET.NAME)(cfg)
