"""PACS. Source: Li et al., ICCV 2017; layout and splits of Dassl 0.6.3."""
from __future__ import annotations

import os.path as osp

from .._domains import DomainDataset, Labelled, in_list
from ..build import DATASET_REGISTRY


@DATASET_REGISTRY.register()
class PACS(DomainDataset):
    """pacs/images/<domain>/<class>, pacs/splits/<domain>_<part>_kfold.txt; tested on whole target domains."""

    dataset_dir = "pacs"
    domains = ["art_painting", "cartoon", "photo", "sketch"]
    data_url, archive = "https://drive.google.com/uc?id=1m4X4fROCCXMO0lRLrr6Zz9Vb3974NWhE", "pacs.zip"
    broken = ("sketch/dog/n02103406_4068-1.png",)

    def splits(self, source, target):
        return {"train_x": self.read(source, "train"), "val": self.read(source, "crossval"),
                "test": self.read(target, "train", "crossval")}

    def images(self, domain: str, part: str) -> Labelled:
        return in_list(osp.join(self.dataset_dir, "splits", f"{domain}_{part}_kfold.txt"),
                       osp.join(self.dataset_dir, "images"), first_label=1, skip=self.broken)
