"""DomainNet for domain generalisation. Source: Peng et al., ICCV 2019; layout of Dassl 0.6.3."""
from __future__ import annotations

import os.path as osp

from .._domains import DomainDataset, Labelled, in_list
from ..build import DATASET_REGISTRY


class Listed(DomainDataset):
    """domainnet/<domain>/<class>, domainnet/<lists>/<domain>_<train or test>.txt."""

    dataset_dir, lists = "domainnet", "splits"

    def images(self, domain: str, part: str) -> Labelled:
        return in_list(osp.join(self.dataset_dir, self.lists, f"{domain}_{part}.txt"), self.dataset_dir)


@DATASET_REGISTRY.register()
class DomainNetDG(Listed):
    """345 classes; validated on the test lists of source domains. painting_train.txt lacks class 327."""

    domains = ["clipart", "infograph", "painting", "quickdraw", "real", "sketch"]

    def splits(self, source, target):
        return {"train_x": self.read(source, "train"), "val": self.read(source, "test"),
                "test": self.read(target, "test")}
