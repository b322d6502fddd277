"""The registry of datasets."""
from __future__ import annotations

from dassl.config import CfgNode
from dassl.utils import Registry, UserError

DATASET_REGISTRY = Registry("DATASET")


def build_dataset(cfg: CfgNode):
    """The dataset that `cfg.DATASET.NAME` names, a DatasetBase."""
    if not cfg.DATASET.NAME:
        raise UserError("No dataset is chosen. Give --dataset-config-file configs/datasets/<name>.yaml, or the option "
                        f"DATASET.NAME with one of: {', '.join(sorted(DATASET_REGISTRY.registered_names()))}.")
    return DATASET_REGISTRY.get(cfg.DATASET.NAME)(cfg)
