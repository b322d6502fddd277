"""What datasets of several domains share: folders, lists of images, and which domains are read as what."""
from __future__ import annotations

import os
import os.path as osp
from collections.abc import Iterable, Sequence

from dassl.utils.errors import UserError
from dassl.utils.tools import listdir_nohidden

from .base_dataset import DatasetBase, Datum

Labelled = list[tuple[str, int, str]]           # path, label, class name


class DomainDataset(DatasetBase):
    """A dataset below DATASET.ROOT whose images belong to domains.

    Attributes of a subclass:
        dataset_dir: its folder; `domains`: its domains' names.
        data_url: of its archive on Google Drive, "" if it is fetched by hand; archive: that file's name.
    """

    data_url = archive = ""

    def __init__(self, cfg):
        root = osp.abspath(osp.expanduser(cfg.DATASET.ROOT))
        self.dataset_dir = osp.join(root, type(self).dataset_dir)
        if not osp.exists(self.dataset_dir):
            if not self.data_url:
                raise UserError(f"{type(self).__name__} is not at {self.dataset_dir}. Fetch it by hand (DATASETS.md of "
                                "Dassl.pytorch names its home and layout), or check DATASET.ROOT.")
            os.makedirs(root, exist_ok=True)
            self.download_data(self.data_url, osp.join(root, self.archive))
        self.check_input_domains(cfg.DATASET.SOURCE_DOMAINS, cfg.DATASET.TARGET_DOMAINS)
        super().__init__(**self.splits(cfg.DATASET.SOURCE_DOMAINS, cfg.DATASET.TARGET_DOMAINS))

    def splits(self, source: Sequence[str], target: Sequence[str]) -> dict[str, list[Datum]]:
        """{"train_x": ..., "val": ..., "test": ...} of source and target domains."""
        raise TypeError(f"{type(self).__name__} does not say how its domains are split.")

    def read(self, domains: Sequence[str], *parts: str) -> list[Datum]:
        """The images of all `parts` of each domain; domains are numbered in their order here."""
        return [Datum(path, label, number, name) for number, domain in enumerate(domains) for part in parts
                for path, label, name in self.images(domain, part)]

    def images(self, domain: str, part: str) -> Labelled:
        """Of one part of one domain."""
        raise TypeError(f"{type(self).__name__} does not say where its images are.")


def in_class_folders(folder: str) -> Labelled:
    """Images of a folder with one folder per class; labels are numbered by name."""
    if not osp.isdir(folder):
        raise UserError(f"There is no folder {folder}. Check that the dataset was unpacked completely.")
    classes = listdir_nohidden(folder, sort=True)
    return [(osp.join(folder, name, image), label, name.lower()) for label, name in enumerate(classes)
            for image in listdir_nohidden(osp.join(folder, name), sort=True)]


def in_list(file: str, folder: str, first_label: int = 0, skip: Iterable[str] = ()) -> Labelled:
    """Images of lines "path label" below `folder`; the class is the folder that holds the image."""
    if not osp.isfile(file):
        raise UserError(f"There is no list {file}. Check that the dataset was unpacked completely.")
    with open(file, encoding="utf-8") as lines:
        rows = [line.rsplit(" ", 1) for line in lines.read().splitlines() if line.strip()]
    return [(osp.join(folder, path), int(label) - first_label, path.split("/")[-2]) for path, label in rows
            if path not in skip]
