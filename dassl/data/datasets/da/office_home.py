"""Office-Home for domain adaptation. Source: Venkateswara et al., CVPR 2017; layout of Dassl 0.6.3."""
from __future__ import annotations

import os.path as osp

from .._domains import DomainDataset, Labelled, in_class_folders
from ..build import DATASET_REGISTRY


class ByFolder(DomainDataset):
    """<folder>/<domain>/<class>; the target domains' images are unlabelled training images and the test set."""

    def splits(self, source, target):
        return {"train_x": self.read(source, ""), "train_u": self.read(target, ""), "test": self.read(target, "")}

    def images(self, domain: str, part: str) -> Labelled:
        return in_class_folders(osp.join(self.dataset_dir, domain))


@DATASET_REGISTRY.register()
class OfficeHome(ByFolder):
    """65 classes of things in offices and homes."""

    dataset_dir = "office_home"
    domains = ["art", "clipart", "product", "real_world"]
