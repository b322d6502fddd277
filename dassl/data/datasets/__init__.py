import importlib

from dassl.compat.left_out import refuse

from .base_dataset import DatasetBase, Datum
from .build import DATASET_REGISTRY, LATER, build_dataset

__all__ = ["DATASET_REGISTRY", "DatasetBase", "Datum", "build_dataset"]

_left_out = refuse(__name__, ("CIFAR10", "CIFAR100", "CIFAR10C", "CIFAR100C", "CIFARSTL", "Camelyon17", "Digit5",
                              "DigitSingle", "FMoW", "IWildCam", "STL10", "SVHN"), LATER)


def __getattr__(name: str):
    """PACS and others: imported, and registered, when they are asked for."""
    return getattr(importlib.import_module(LATER[name]), name) if name in LATER else _left_out(name)
