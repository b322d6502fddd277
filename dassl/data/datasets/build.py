"""DATASET.NAME -> a dataset."""
from __future__ import annotations

from dassl.utils.registry import Registry

DATASET_REGISTRY = Registry("DATASET")


def build_dataset(cfg):
    """The dataset registered as cfg.DATASET.NAME. Raises UserError with the nearest name for an unknown one."""
    return DATASET_REGISTRY.get(cfg.DATASET.NAME)(cfg)
