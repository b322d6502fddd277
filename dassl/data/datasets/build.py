"""DATASET.NAME -> a dataset."""
from __future__ import annotations

from dassl.utils.registry import Registry

_DG = ("PACS", "VLCS", "DigitsDG", "OfficeHomeDG", "DomainNetDG")
_DA = ("Office31", "OfficeHome", "VisDA17", "DomainNet", "miniDomainNet")

LATER = {**dict.fromkeys(_DG, "dassl.data.datasets.dg"), **dict.fromkeys(_DA, "dassl.data.datasets.da")}
DATASET_REGISTRY = Registry("DATASET", LATER)


def build_dataset(cfg):
    """The dataset registered as cfg.DATASET.NAME. Raises UserError with the nearest name for an unknown one."""
    return DATASET_REGISTRY.get(cfg.DATASET.NAME)(cfg)
