"""Labelled image files, and the draws that few-shot benchmarks make from them.

The module path and the private attributes of `Datum` are a pickle contract: CoOp's cached few-shot lists hold them.
"""
from __future__ import annotations

import logging
import os.path as osp
import random
import tarfile
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from operator import attrgetter

from PIL import Image

from dassl.data.task import Task
from dassl.utils.errors import UserError
from dassl.utils.tools import check_isfile, download_url

logger = logging.getLogger(__name__)


class Datum:
    """The path of an image, the indices of its class and domain, and its class name."""

    def __init__(self, impath: str = "", label: int = 0, domain: int = 0, classname: str = ""):
        if not isinstance(impath, str):
            raise TypeError(f"Datum takes impath as str, got {type(impath).__name__}.")
        self._impath, self._label, self._domain, self._classname = impath, label, domain, classname

    impath, label, domain, classname = (property(attrgetter(f"_{name}"))
                                        for name in ("impath", "label", "domain", "classname"))

    def seen(self, image: Image.Image) -> Image.Image:
        """What is seen of it, before any transform: here the image itself."""
        return image

    def __repr__(self) -> str:
        return f"Datum({self._impath!r}, label={self._label}, classname={self._classname!r})"


class DatasetBase:
    """Splits of Datum lists. Subclasses build them and call `super().__init__(train_x=..., val=..., test=...)`.

    Attributes:
        train_x, train_u, val, test: labelled, unlabelled, validation and test images; absent ones are None or empty.
        num_classes: largest training label + 1. lab2cname: {label: class name}. classnames: by label.
        task: what is asked about its items.
        test_domains, val_domains: names of the test and validation images' domains, by index; () where nobody names
            them. Where there are some, an epoch is chosen by the mean of the domains' accuracies.
        val_is: what the validation images are, for results.json.
        val_is_test: there are validation images, and they are the test images (CoOp's ImageNet).
    """

    dataset_dir, task = "", Task()
    domains: list[str] = []
    test_domains: Sequence[str] = ()
    val_domains: Sequence[str] = ()
    val_is = "the validation split"

    def __init__(self, train_x: Sequence[Datum] | None = None, train_u: Sequence[Datum] | None = None,
                 val: Sequence[Datum] | None = None, test: Sequence[Datum] | None = None):
        self._train_x, self._train_u, self._val, self._test = train_x, train_u, val, test
        self._num_classes = self.get_num_classes(train_x)
        self._lab2cname, self._classnames = self.get_lab2cname(train_x)

    train_x, train_u, val, test, lab2cname, classnames, num_classes = (
        property(attrgetter(f"_{name}"))
        for name in ("train_x", "train_u", "val", "test", "lab2cname", "classnames", "num_classes"))

    @property
    def val_is_test(self) -> bool:
        return bool(self.val) and [item.impath for item in self.val] == [item.impath for item in self.test or ()]

    @cached_property
    def all_class_names(self) -> list[str]:
        """Of the classes that were left out too: LASP's name for what its datasets keep as `all_classnames`."""
        return self.all_classnames

    def train_on_val(self) -> None:
        """Move the validation images into the training split, behind its own images.

        Raises:
            UserError: there are none, or they are the test images.
        """
        if not self.val or self.val_is_test:
            raise UserError(f"DATASET.TRAIN_ON_VAL takes the validation images of {type(self).__name__}, which "
                            f"{'are its test images' if self.val else 'has none'}. Leave the option out.")
        self._train_x, self._val = [*self._train_x, *self._val], None

    @staticmethod
    def get_num_classes(data_source: Sequence[Datum]) -> int:
        """Largest label + 1."""
        if not data_source:
            raise UserError("The training split of the dataset is empty. Check DATASET.ROOT and the split files.")
        return max(item.label for item in data_source) + 1

    @staticmethod
    def get_lab2cname(data_source: Sequence[Datum]) -> tuple[dict[int, str], list[str]]:
        """{label: class name} and the names by label.

        Raises:
            UserError: one label with two names.
        """
        mapping: dict[int, str] = {}
        for item in data_source:
            if mapping.setdefault(item.label, item.classname) != item.classname:
                raise UserError(f"Label {item.label} has two class names, {mapping[item.label]!r} and "
                                f"{item.classname!r} ({item.impath}). Each label stands for one class: fix the "
                                "split file.")
        return mapping, [mapping[label] for label in sorted(mapping)]

    def check_input_domains(self, source_domains, target_domains) -> None:
        """Raises UserError unless both lists name domains of this dataset, some at all."""
        if not source_domains:
            raise UserError("DATASET.SOURCE_DOMAINS is empty; name at least one of " + ", ".join(self.domains))
        self.is_input_domain_valid([*source_domains, *target_domains])
        for key, names in (("SOURCE_DOMAINS", source_domains), ("TARGET_DOMAINS", target_domains)):
            if twice := {name for name in names if list(names).count(name) > 1}:
                raise UserError(f"DATASET.{key} names {min(twice)} twice, so its images would count twice. Name each "
                                "domain once.")

    def is_input_domain_valid(self, input_domains: Sequence[str]) -> None:
        """Raises UserError for a name that is not a domain of this dataset."""
        for domain in input_domains:
            if domain not in self.domains:
                raise UserError(f"{domain!r} is not a domain of this dataset; it has {', '.join(self.domains)}.")

    def download_data(self, url: str, dst: str, from_gdrive: bool = True) -> None:
        """Fetch an archive to `dst` and unpack it next to it (zip and tar; members that leave the folder are refused).

        Raises:
            UserError: it cannot be fetched, or what came is not an archive.
        """
        folder, by_hand = osp.dirname(dst), f"Download it by hand and place it at {dst}."
        if from_gdrive:
            try:
                import gdown
            except ImportError as error:
                raise UserError(f"{url} lies on Google Drive, which needs the package gdown (pip install gdown). "
                                f"{by_hand}") from error
            try:
                gdown.download(url, dst, quiet=False)
            except Exception as error:  # gdown's own types and those of the library below it
                raise UserError(f"{url} cannot be fetched ({type(error).__name__}: {' '.join(str(error).split())[:200]}"
                                f"). {by_hand}") from error
        else:
            download_url(url, dst)
        if not check_isfile(dst):
            raise UserError(f"{url} did not arrive at {dst}. {by_hand}")
        logger.info("Extracting %s", dst)
        try:
            if zipfile.is_zipfile(dst):
                with zipfile.ZipFile(dst) as archive:
                    archive.extractall(folder)
            else:
                with tarfile.open(dst) as archive:
                    archive.extractall(folder, filter="data")
        except (tarfile.TarError, zipfile.BadZipFile, OSError, EOFError, zlib.error) as error:
            raise UserError(f"{dst} is not a complete zip or tar archive ({' '.join(str(error).split())}); "
                            "Google Drive may have sent a page instead. Delete it, then fetch it again.") from error

    def generate_fewshot_dataset(self, *data_sources: Sequence[Datum], num_shots: int = -1, repeat: bool = False):
        """Draw `num_shots` images per class from Python's global random stream, as Dassl does.

        Args:
            num_shots: images per class; below 1 the lists are returned as they are.
            repeat: draw with replacement from a class that has fewer; else all of it is taken.
        Returns:
            One list, or a list of lists for several sources.
        """
        if num_shots < 1:
            return data_sources[0] if len(data_sources) == 1 else data_sources
        logger.info("Creating a %d-shot dataset", num_shots)
        drawn = []
        for source in data_sources:
            dataset = []
            for items in self.split_dataset_by_label(source).values():
                if len(items) >= num_shots:
                    dataset += random.sample(items, num_shots)
                else:
                    dataset += random.choices(items, k=num_shots) if repeat else items
            drawn.append(dataset)
        return drawn[0] if len(drawn) == 1 else drawn

    @staticmethod
    def split_dataset_by_label(data_source: Sequence[Datum]) -> dict[int, list[Datum]]:
        """{label: its images}, labels in order of first appearance."""
        by_label = defaultdict(list)
        for item in data_source:
            by_label[item.label].append(item)
        return by_label

    @staticmethod
    def split_dataset_by_domain(data_source: Sequence[Datum]) -> dict[int, list[Datum]]:
        """{domain: its images}, domains in order of first appearance."""
        by_domain = defaultdict(list)
        for item in data_source:
            by_domain[item.domain].append(item)
        return by_domain
