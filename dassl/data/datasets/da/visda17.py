"""VisDA-2017. Source: Peng et al., 2017; layout of Dassl 0.6.3."""
from __future__ import annotations

import os.path as osp

from .._domains import DomainDataset, Labelled, in_list
from ..build import DATASET_REGISTRY


@DATASET_REGISTRY.register()
class VisDA17(DomainDataset):
    """12 classes, from synthetic (visda17/train) to real images (visda17/validation), whatever the config names."""

    dataset_dir = "visda17"
    domains = ["synthetic", "real"]

    def splits(self, source, target):
        real = self.read(["real"], "validation")
        return {"train_x": self.read(["synthetic"], "train"), "train_u": real, "test": list(real)}

    def images(self, domain: str, part: str) -> Labelled:
        folder = osp.join(self.dataset_dir, part)
        return in_list(osp.join(folder, "image_list.txt"), folder)
