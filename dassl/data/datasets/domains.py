"""Datasets of several domains, for domain generalisation and adaptation, in the layout and splits of Dassl 0.6.3.

Source: PACS (Li et al., ICCV 2017), VLCS (Torralba and Efros, CVPR 2011), Digits-DG (Zhou et al., AAAI 2020), Office-31
(Saenko et al., ECCV 2010), Office-Home (Venkateswara et al., CVPR 2017), DomainNet (Peng et al., ICCV 2019),
miniDomainNet (Zhou et al., TIP 2021), VisDA-2017 (Peng et al., 2017).
"""
from __future__ import annotations

import os
import os.path as osp
from collections.abc import Iterable, Sequence

from dassl.utils.errors import UserError
from dassl.utils.tools import listdir_nohidden

from .base_dataset import DatasetBase, Datum
from .build import DATASET_REGISTRY

Labelled = list[tuple[str, int, str]]           # path, label, class name


class DomainDataset(DatasetBase):
    """A dataset below DATASET.ROOT whose images belong to domains, which are numbered in the order of the config.

    Attributes of a subclass:
        dataset_dir: its folder; `domains`: its domains' names.
        data_url: of its archive on Google Drive, "" if it is fetched by hand; archive: that file's name.
        train_parts, val_parts: what is read of each source domain; unlabelled_parts, test_parts: of each target one.
        folders: of a domain's part, with one folder per class; or lists: the file of lines "path label", whose paths
            are below `root`.
    """

    data_url = archive = folders = lists = root = ""
    train_parts, test_parts = ("train",), ("test",)
    val_parts = unlabelled_parts = ()
    first_label, broken = 0, ()                 # of the lists

    def __init__(self, cfg):
        root = osp.abspath(osp.expanduser(cfg.DATASET.ROOT))
        self.dataset_dir = osp.join(root, type(self).dataset_dir)
        if not osp.exists(self.dataset_dir):
            if not self.data_url:
                raise UserError(f"{type(self).__name__} is not at {self.dataset_dir}. Fetch it by hand (DATASETS.md of "
                                "Dassl.pytorch names its home and layout), or check DATASET.ROOT.")
            os.makedirs(root, exist_ok=True)
            self.download_data(self.data_url, osp.join(root, self.archive))
        source, target = self.input_domains(cfg.DATASET.SOURCE_DOMAINS, cfg.DATASET.TARGET_DOMAINS)
        super().__init__(self.read(source, self.train_parts), self.read(target, self.unlabelled_parts),
                         self.read(source, self.val_parts), self.read(target, self.test_parts))

    def input_domains(self, source: Sequence[str], target: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
        self.check_input_domains(source, target)
        return source, target

    def read(self, domains: Sequence[str], parts: Sequence[str]) -> list[Datum] | None:
        return None if not parts else [
            Datum(path, label, number, name) for number, domain in enumerate(domains) for part in parts
            for path, label, name in self.images(domain, part)]

    def images(self, domain: str, part: str) -> Labelled:
        def below(path: str) -> str:
            return osp.join(self.dataset_dir, path.format(domain=domain, part=part))

        return in_list(below(self.lists), below(self.root), self.first_label, self.broken) if self.lists else \
            in_class_folders(below(self.folders))


def in_class_folders(folder: str) -> Labelled:
    """Images of a folder with one folder per class; labels are numbered by name."""
    if not osp.isdir(folder):
        raise UserError(f"There is no folder {folder}. Check that the dataset was unpacked completely.")
    classes = listdir_nohidden(folder, sort=True)
    return [(osp.join(folder, name, image), label, name.lower()) for label, name in enumerate(classes)
            for image in listdir_nohidden(osp.join(folder, name), sort=True)]


def in_list(file: str, folder: str, first_label: int, skip: Iterable[str]) -> Labelled:
    """Images of lines "path label" below `folder`; the class is the folder that holds the image."""
    if not osp.isfile(file):
        raise UserError(f"There is no list {file}. Check that the dataset was unpacked completely.")
    with open(file, encoding="utf-8") as lines:
        rows = [line.rsplit(" ", 1) for line in lines.read().splitlines() if line.strip()]
    return [(osp.join(folder, path), int(label) - first_label, path.split("/")[-2]) for path, label in rows
            if path not in skip]


@DATASET_REGISTRY.register()
class PACS(DomainDataset):
    dataset_dir, domains = "pacs", ["art_painting", "cartoon", "photo", "sketch"]
    data_url, archive = "https://drive.google.com/uc?id=1m4X4fROCCXMO0lRLrr6Zz9Vb3974NWhE", "pacs.zip"
    lists, root, first_label = "splits/{domain}_{part}_kfold.txt", "images", 1
    val_parts, test_parts = ("crossval",), ("train", "crossval")
    broken = ("sketch/dog/n02103406_4068-1.png",)


@DATASET_REGISTRY.register()
class VLCS(DomainDataset):
    dataset_dir, domains = "VLCS", ["caltech", "labelme", "pascal", "sun"]
    data_url, archive = "https://drive.google.com/uc?id=1r0WL5DDqKfSPp9E3tRENwHaXNs1olLZd", "vlcs.zip"
    folders, val_parts = "{domain}/{part}", ("crossval",)
    names = ("bird", "car", "chair", "dog", "person")

    def images(self, domain: str, part: str) -> Labelled:
        return [(path, label, self.names[label]) for path, label, _ in super().images(domain.upper(), part)]


@DATASET_REGISTRY.register()
class DigitsDG(DomainDataset):
    dataset_dir, domains = "digits_dg", ["mnist", "mnist_m", "svhn", "syn"]
    data_url, archive = "https://drive.google.com/uc?id=15V7EsHfCcfbKgsDmzQKj_DfXt_XYp_P7", "digits_dg.zip"
    folders, val_parts, test_parts = "{domain}/{part}", ("val",), ("train", "val")


@DATASET_REGISTRY.register()
class OfficeHomeDG(DigitsDG):
    dataset_dir, domains = "office_home_dg", ["art", "clipart", "product", "real_world"]
    data_url, archive = "https://drive.google.com/uc?id=1gkbf_KaxoBws-GWT3XIPZ7BnkqbAxIFa", "office_home_dg.zip"


@DATASET_REGISTRY.register()
class DomainNetDG(DomainDataset):
    """painting_train.txt lacks class 327."""

    dataset_dir, lists = "domainnet", "splits/{domain}_{part}.txt"
    domains = ["clipart", "infograph", "painting", "quickdraw", "real", "sketch"]
    val_parts = ("test",)


@DATASET_REGISTRY.register()
class DomainNet(DomainNetDG):
    unlabelled_parts = ("train",)


@DATASET_REGISTRY.register()
class miniDomainNet(DomainNet):  # noqa: N801 - Dassl's spelling
    """DomainNet's images under lists of its own."""

    lists, domains, val_parts = "splits_mini/{domain}_{part}.txt", ["clipart", "painting", "real", "sketch"], ()


@DATASET_REGISTRY.register()
class OfficeHome(DomainDataset):
    dataset_dir, domains = "office_home", ["art", "clipart", "product", "real_world"]
    folders, train_parts, unlabelled_parts, test_parts = "{domain}", ("",), ("",), ("",)


@DATASET_REGISTRY.register()
class Office31(OfficeHome):
    dataset_dir, domains = "office31", ["amazon", "webcam", "dslr"]


@DATASET_REGISTRY.register()
class VisDA17(DomainDataset):
    """From synthetic to real images, whatever domains the config names."""

    dataset_dir, domains = "visda17", ["synthetic", "real"]
    lists, root, unlabelled_parts, test_parts = "{part}/image_list.txt", "{part}", ("validation",), ("validation",)

    def input_domains(self, source, target):
        super().input_domains(source, target)
        return ["synthetic"], ["real"]
