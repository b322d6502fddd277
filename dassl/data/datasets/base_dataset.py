"""Datum, one labelled image, and DatasetBase, the lists of them that make a dataset."""
from __future__ import annotations

import logging
import random
from collections import defaultdict
from collections.abc import Sequence

from dassl.utils import UnknownName, UserError, suggestion

logger = logging.getLogger(__name__)


class Datum:
    """One image: path, label, domain, class name.

    Pickled few-shot splits in the wild hold objects of this module path with these private attribute names.
    """

    def __init__(self, impath: str = "", label: int = 0, domain: int = 0, classname: str = ""):
        if not isinstance(impath, str):
            raise TypeError(f"Datum takes its path as str; got {type(impath).__name__}: {impath!r}.")
        self._impath = impath
        self._label = label
        self._domain = domain
        self._classname = classname

    @property
    def impath(self) -> str:
        return self._impath

    @property
    def label(self) -> int:
        return self._label

    @property
    def domain(self) -> int:
        return self._domain

    @property
    def classname(self) -> str:
        return self._classname

    def __repr__(self) -> str:
        return f"Datum({self._impath!r}, label={self._label}, domain={self._domain}, classname={self._classname!r})"


class DatasetBase:
    """Lists of Datum: `train_x` labelled, `train_u` unlabelled, `val`, `test`.

    Labels are 0 .. num_classes - 1; `classnames[label]` and `lab2cname` come from `train_x`.
    """

    dataset_dir = ""            # folder under cfg.DATASET.ROOT
    domains: list[str] = []     # names of all domains, where the dataset has domains

    def __init__(self, train_x=None, train_u=None, val=None, test=None):
        self._train_x = train_x
        self._train_u = train_u
        self._val = val
        self._test = test
        self._num_classes = self.get_num_classes(train_x)
        self._lab2cname, self._classnames = self.get_lab2cname(train_x)

    @property
    def train_x(self) -> list[Datum]:
        return self._train_x

    @property
    def train_u(self) -> list[Datum] | None:
        return self._train_u

    @property
    def val(self) -> list[Datum] | None:
        return self._val

    @property
    def test(self) -> list[Datum]:
        return self._test

    @property
    def lab2cname(self) -> dict[int, str]:
        return self._lab2cname

    @property
    def classnames(self) -> list[str]:
        return self._classnames

    @property
    def num_classes(self) -> int:
        return self._num_classes

    @staticmethod
    def get_num_classes(data_source: Sequence[Datum]) -> int:
        """Largest label plus one."""
        if not data_source:
            raise UserError("The dataset has no training images, so its classes are not known. Check DATASET.ROOT and "
                            "the split file.")
        return max(item.label for item in data_source) + 1

    @staticmethod
    def get_lab2cname(data_source: Sequence[Datum]) -> tuple[dict[int, str], list[str]]:
        """Label to class name, and the names in order of label."""
        mapping = {item.label: item.classname for item in data_source}
        return mapping, [mapping[label] for label in sorted(mapping)]

    def check_input_domains(self, source_domains: Sequence[str], target_domains: Sequence[str]) -> None:
        for kind, names in (("SOURCE", source_domains), ("TARGET", target_domains)):
            if not names:
                raise UserError(f"{type(self).__name__} needs DATASET.{kind}_DOMAINS; choose from {self.domains}.")
            self.is_input_domain_valid(names)

    def is_input_domain_valid(self, input_domains: Sequence[str]) -> None:
        for domain in input_domains:
            if domain not in self.domains:
                raise UnknownName(f"{type(self).__name__} has no domain {domain!r}{suggestion(domain, self.domains)}.")

    def download_data(self, url: str, dst: str, from_gdrive: bool = True) -> None:
        """Downloads an archive to `dst` and unpacks it beside itself.

        Args:
            from_gdrive: `url` is a Google Drive link, or a file id.
        """
        from dassl.utils.download import download_url, extract_archive, google_drive_url

        download_url(google_drive_url(url) if from_gdrive else url, dst)
        extract_archive(dst)

    def generate_fewshot_dataset(self, *data_sources: list[Datum], num_shots: int = -1, repeat: bool = False):
        """`num_shots` images of each class, drawn from Python's global stream class by class in order of appearance.

        Args:
            num_shots: below 1 gives back everything.
            repeat: a class with too few images is drawn with replacement; otherwise all of it is taken.
        Returns:
            A list, or one list per source where there are several.
        Source: the order of draws is Dassl 0.6.3's, so the subsets equal everyone else's.
        """
        if num_shots < 1:
            return data_sources[0] if len(data_sources) == 1 else data_sources
        logger.info("Creating a %d-shot dataset", num_shots)
        output = []
        for data_source in data_sources:
            chosen = []
            for items in self.split_dataset_by_label(data_source).values():
                if len(items) >= num_shots:
                    chosen += random.sample(items, num_shots)
                else:
                    chosen += random.choices(items, k=num_shots) if repeat else items
            output.append(chosen)
        return output[0] if len(output) == 1 else output

    def split_dataset_by_label(self, data_source: Sequence[Datum]) -> dict[int, list[Datum]]:
        """Images of each label, labels in order of first appearance."""
        return _group(data_source, "label")

    def split_dataset_by_domain(self, data_source: Sequence[Datum]) -> dict[int, list[Datum]]:
        """Images of each domain, domains in order of first appearance."""
        return _group(data_source, "domain")


def _group(data_source: Sequence[Datum], attribute: str) -> dict[int, list[Datum]]:
    groups = defaultdict(list)
    for item in data_source:
        groups[getattr(item, attribute)].append(item)
    return groups
