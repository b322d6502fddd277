"""VLCS. Source: Torralba and Efros, CVPR 2011; layout of Dassl 0.6.3."""
from __future__ import annotations

import os.path as osp

from .._domains import DomainDataset, Labelled, in_class_folders
from ..build import DATASET_REGISTRY


@DATASET_REGISTRY.register()
class VLCS(DomainDataset):
    """VLCS/<DOMAIN>/<train, crossval or test>/<0 to 4>; tested on the test part of target domains."""

    dataset_dir = "VLCS"
    domains = ["caltech", "labelme", "pascal", "sun"]
    data_url, archive = "https://drive.google.com/uc?id=1r0WL5DDqKfSPp9E3tRENwHaXNs1olLZd", "vlcs.zip"
    names = ("bird", "car", "chair", "dog", "person")

    def splits(self, source, target):
        return {"train_x": self.read(source, "train"), "val": self.read(source, "crossval"),
                "test": self.read(target, "test")}

    def images(self, domain: str, part: str) -> Labelled:
        found = in_class_folders(osp.join(self.dataset_dir, domain.upper(), part))
        return [(path, label, self.names[label]) for path, label, _ in found]
