"""Datasets that come as arrays, which are written as images once: CIFAR-10 and -100, STL-10, MNIST and others.

CIFAR and STL-10 are the binary versions, so nothing is unpickled.
Source: addresses and MD5 sums as the pages of CIFAR and torchvision have them.
"""
from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from dassl.utils import UserError

from .benchmarks import find_or_fetch
from .cards import Archive, DatasetCard
from .embedded import write_once
from .few_shot import few_shot_splits

_TORONTO = "https://www.cs.toronto.edu/~kriz"
_SVHN = "http://ufldl.stanford.edu/housenumbers"
_IDX = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz",
        "t10k-labels-idx1-ubyte.gz")
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_CLOTHES = ("T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
_CIFAR10 = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin", "batches.meta.txt")
_STL10 = ("train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin", "class_names.txt")
_CIFAR100 = ("train.bin", "test.bin", "fine_label_names.txt")


def _plain(url: str, sums: dict[str, str]) -> tuple[Archive, ...]:
    return tuple(Archive(f"{url}/{name}", (name,), md5, plain=True) for name, md5 in sums.items())


CARDS = {card.name: card for card in (
    DatasetCard("CIFAR100", "cifar100", "", "cifar", 100, 10000, train=50000, needs=_CIFAR100, archives=(
        Archive(f"{_TORONTO}/cifar-100-binary.tar.gz", _CIFAR100, "03b5dce01913d631647c71ecec9e9cb8",
                "cifar-100-binary"),), home=f"{_TORONTO}/cifar.html"),
    DatasetCard("CIFAR10", "cifar10", "", "cifar", 10, 10000, train=50000, needs=_CIFAR10, archives=(
        Archive(f"{_TORONTO}/cifar-10-binary.tar.gz", _CIFAR10, "c32a1d4ab5d03f1284b67883e8d87530",
                "cifar-10-batches-bin"),), home=f"{_TORONTO}/cifar.html"),
    DatasetCard("MNIST", "mnist", "", "idx", 10, 10000, 'a photo of the digit {}.', train=60000, needs=_IDX,
                archives=_plain("https://ossci-datasets.s3.amazonaws.com/mnist", dict(zip(_IDX, (
                    "f68b3c2dcbeaaa9fbdd348bbdeb94873", "d53e105ee54ea40749a09fcbcd1e9432",
                    "9fb629c4189551a2d022fa330f9573f3", "ec29112dd5afa0611ce80d1b7f02629c"), strict=True)))),
    DatasetCard("FashionMNIST", "fashion_mnist", "", "idx", 10, 10000, train=60000, needs=_IDX,
                archives=_plain("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com", dict(zip(_IDX, (
                    "8d4fb7e6c68d591d4c3dfef9ec88bf0d", "25c81989df183df01b3e8a0aad5dffbe",
                    "bef4ecab320f06d8554ea6380940ec79", "bb300cfdad3c16e7a12a480ee83cd310"), strict=True)))),
    DatasetCard("SVHN", "svhn", "", "svhn", 10, 26032, 'a photo of the digit {}.', train=73257,
                needs=("train_32x32.mat", "test_32x32.mat"), home=_SVHN, archives=_plain(_SVHN, {
                    "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
                    "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3"})),
    DatasetCard("STL10", "stl10", "", "stl", 10, 8000, train=5000, needs=_STL10, archives=(
        Archive("http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz", _STL10,
                "91f7769df0f17e558f3565bffb0c7dfb", "stl10_binary"),), home="https://cs.stanford.edu/~acoates/stl10/"),
)}


class FromArrays(DatasetBase):
    """Of a card above; the whole test split is tested, and a k-shot draw of the training images is that of CoOp."""

    card: DatasetCard

    def __init__(self, cfg):
        self.template = self.card.template
        self.folder = Path(os.path.abspath(os.path.expanduser(cfg.DATASET.ROOT or "."))) / self.card.folder
        find_or_fetch(self.card, self.folder)
        train, test = self.read(cfg.DATASET.ROOT)
        train, _, test = few_shot_splits(self, cfg, train, None, test)
        super().__init__(train_x=train, test=test)

    def read(self, root: str) -> list[list[Datum]]:
        """Training and test images."""
        places = {split: self.places(split) for split in ("train", "test")}
        folder = write_once(root, f"{self.card.folder}_images", lambda: (
            (f"{split}/{i:05d}.png", image) for split in places for i, (image, _) in enumerate(self.arrays(split))))
        names = self.names()
        return [[Datum(impath=str(folder / split / f"{i:05d}.png"), label=label, classname=names[label])
                 for i, label in enumerate(labels)] for split, labels in places.items()]

    def places(self, split: str) -> list[int]:
        """The label of every image."""
        return [label for _, label in self.arrays(split)]

    def arrays(self, split: str) -> Iterator[tuple[np.ndarray, int]]:
        """Images (H, W, 3) or (H, W) uint8, and labels."""
        raise NotImplementedError

    def names(self) -> list[str]:
        raise NotImplementedError


def records(path: Path, labels: int) -> np.ndarray:
    """A binary file of CIFAR's: (N, labels + 3072) uint8. Raises UserError: it is cut."""
    data, row = np.fromfile(path, dtype=np.uint8), labels + 3072
    if not len(data) or len(data) % row:
        raise UserError(f"{path} must hold records of {row} bytes, got {len(data)} bytes: it is cut. Delete it, and it "
                        "is fetched again.")
    return data.reshape(-1, row)


@DATASET_REGISTRY.register()
class CIFAR100(FromArrays):
    """Its 100 fine classes."""

    card, labels_of_each, name_file = CARDS["CIFAR100"], 2, "fine_label_names.txt"

    def files(self, split: str) -> list[str]:
        return [f"{split}.bin"]

    def arrays(self, split: str) -> Iterator[tuple[np.ndarray, int]]:
        for file in self.files(split):
            for row in records(self.folder / file, self.labels_of_each):
                yield row[-3072:].reshape(3, 32, 32).transpose(1, 2, 0), int(row[self.labels_of_each - 1])

    def names(self) -> list[str]:
        return [line.replace("_", " ") for line in (self.folder / self.name_file).read_text().split()]


@DATASET_REGISTRY.register()
class CIFAR10(CIFAR100):
    """Its 10 classes."""

    card, labels_of_each, name_file = CARDS["CIFAR10"], 1, "batches.meta.txt"

    def files(self, split: str) -> list[str]:
        return [file for file in _CIFAR10 if file.startswith("data" if split == "train" else "test")]


class MNIST(FromArrays):
    card, classnames_of = CARDS["MNIST"], _DIGITS

    def arrays(self, split: str) -> Iterator[tuple[np.ndarray, int]]:
        start = 0 if split == "train" else 2
        images, labels = (gzip.decompress((self.folder / name).read_bytes()) for name in _IDX[start:start + 2])
        pixels = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28)
        yield from zip(pixels, np.frombuffer(labels, np.uint8, offset=8).tolist(), strict=True)

    def names(self) -> list[str]:
        return list(self.classnames_of)


class FashionMNIST(MNIST):
    card, classnames_of = CARDS["FashionMNIST"], _CLOTHES


class SVHN(FromArrays):
    card = CARDS["SVHN"]

    def arrays(self, split: str) -> Iterator[tuple[np.ndarray, int]]:
        from scipy.io import loadmat

        content = loadmat(self.folder / f"{split}_32x32.mat")
        for image, label in zip(content["X"].transpose(3, 0, 1, 2), content["y"].ravel(), strict=True):
            yield image, int(label) % 10                        # its zero is labelled 10

    def names(self) -> list[str]:
        return list(_DIGITS)


@DATASET_REGISTRY.register()
class STL10(FromArrays):
    """Its 10 classes; the images without labels are left alone."""

    card = CARDS["STL10"]

    def arrays(self, split: str) -> Iterator[tuple[np.ndarray, int]]:
        labels = np.fromfile(self.folder / f"{split}_y.bin", dtype=np.uint8)
        pixels = np.fromfile(self.folder / f"{split}_X.bin", dtype=np.uint8)
        if len(pixels) != len(labels) * 3 * 96 * 96:
            raise UserError(f"{self.folder / f'{split}_X.bin'} must hold 27648 bytes for each of the {len(labels)} "
                            f"labels of {split}_y.bin, got {len(pixels)}: it is cut. Delete both, and they are fetched "
                            "again.")
        for image, label in zip(pixels.reshape(-1, 3, 96, 96), labels.tolist(), strict=True):
            yield image.transpose(2, 1, 0), label - 1           # columns come first

    def names(self) -> list[str]:
        return (self.folder / "class_names.txt").read_text().split()
