"""Digits-DG. Source: Zhou et al., AAAI 2020; layout of Dassl 0.6.3."""
from __future__ import annotations

import os.path as osp

from .._domains import DomainDataset, Labelled, in_class_folders
from ..build import DATASET_REGISTRY


class TrainAndVal(DomainDataset):
    """<folder>/<domain>/<train or val>/<class>; tested on whole target domains."""

    def splits(self, source, target):
        return {"train_x": self.read(source, "train"), "val": self.read(source, "val"),
                "test": self.read(target, "train", "val")}

    def images(self, domain: str, part: str) -> Labelled:
        return in_class_folders(osp.join(self.dataset_dir, domain, part))


@DATASET_REGISTRY.register()
class DigitsDG(TrainAndVal):
    """Digits of MNIST, MNIST-M, SVHN and SYN."""

    dataset_dir = "digits_dg"
    domains = ["mnist", "mnist_m", "svhn", "syn"]
    data_url, archive = "https://drive.google.com/uc?id=15V7EsHfCcfbKgsDmzQKj_DfXt_XYp_P7", "digits_dg.zip"
