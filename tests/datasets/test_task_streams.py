"""Datasets for classes that arrive in tasks, read from small files in the published formats."""
import gzip

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from dassl.data.datasets import DATASET_REGISTRY, Datum
from dassl.utils import UserError
from datasets import arrays
from datasets.cards import CARDS
from datasets.check import DatasetNotFound
from datasets.task_streams import LISTS, divided, listed
from tools import train


def cfg_of(root, stem):
    train.register()
    return train.setup_cfg(train.parser().parse_args([
        "--root", str(root), "--trainer", "L2P", "--seed", "1",
        "--dataset-config-file", f"configs/datasets/{stem}.yaml", "--config-file", "configs/trainers/L2P/tiny.yaml"]))


def build(root, stem):
    cfg = cfg_of(root, stem)
    return DATASET_REGISTRY.get(cfg.DATASET.NAME)(cfg)


def record(labels, red, green, blue):
    return bytes([*labels, *([red] * 1024), *([green] * 1024), *([blue] * 1024)])


def write_cifar(folder, files, names, first):
    folder.mkdir(parents=True)
    for number, file in enumerate(files):
        (folder / file).write_bytes(b"".join(record([*first, label], 10 * label, number, 200) for label in (1, 0)))
    (folder / names).write_text("apple\nbig_fish\n\n")


def pixel(item):
    return Image.open(item.impath).convert("RGB").getpixel((3, 5))


def test_cifar100_has_its_fine_classes_and_colours(tmp_path):
    write_cifar(tmp_path / "cifar100", ["train.bin", "test.bin"], "fine_label_names.txt", [19])
    dataset = build(tmp_path, "cifar100")
    assert dataset.classnames == ["apple", "big fish"]
    assert [(item.label, pixel(item)) for item in dataset.train_x] == [(1, (10, 0, 200)), (0, (0, 0, 200))]
    assert [(item.label, pixel(item)) for item in dataset.test] == [(1, (10, 1, 200)), (0, (0, 1, 200))]
    (tmp_path / "cifar100" / "test.bin").write_bytes(b"short")
    with pytest.raises(UserError, match="got 5 bytes"):
        build(tmp_path, "cifar100")


def test_stl10_has_its_labels_from_one_and_columns_first(tmp_path):
    folder = tmp_path / "stl10"
    folder.mkdir()
    images = np.zeros((2, 96, 96, 3), np.uint8)
    images[:, 5, 3] = [[1, 2, 3], [4, 5, 6]]                                # row 5, column 3, which `pixel` reads
    for split in ("train", "test"):
        images.transpose(0, 3, 2, 1).tofile(folder / f"{split}_X.bin")
        np.array([2, 1], np.uint8).tofile(folder / f"{split}_y.bin")
    (folder / "class_names.txt").write_text("airplane\nbird\n")
    dataset = build(tmp_path, "stl10")
    assert [(item.label, item.classname, pixel(item)) for item in dataset.test] == [
        (1, "bird", (1, 2, 3)), (0, "airplane", (4, 5, 6))]
    (folder / "test_X.bin").write_bytes(b"short")
    with pytest.raises(UserError, match="got 5"):
        build(tmp_path, "stl10")


def test_five_datasets_are_five_tasks(tmp_path):
    write_cifar(tmp_path / "cifar10", arrays.CARDS["CIFAR10"].needs[:6], "batches.meta.txt", [])
    for name in ("mnist", "fashion_mnist"):
        (tmp_path / name).mkdir()
        for file in arrays.CARDS["MNIST"].needs:
            head, count = (16, 784) if "images" in file else (8, 1)
            values = [bytes([9 - k if count == 1 else 7 * k] * count) for k in range(10)]
            content = bytes(head) + b"".join(values)
            (tmp_path / name / file).write_bytes(gzip.compress(content))
    (tmp_path / "svhn").mkdir()
    for split in ("train", "test"):
        images = np.stack([np.full((32, 32, 3), 5 * k, np.uint8) for k in range(10)], axis=-1)
        savemat(tmp_path / "svhn" / f"{split}_32x32.mat", {"X": images, "y": np.array([[k or 10] for k in range(10)])})
        for letter in "ABCDEFGHIJ":
            place = tmp_path / "notmnist" / split / letter
            place.mkdir(parents=True)
            Image.new("L", (28, 28), 100).save(place / "1.png")
    dataset = build(tmp_path, "five_datasets")
    assert dataset.task_of_class == [0] * 10 + [1] * 10 + [2] * 2 + [3] * 10 + [4] * 10      # CIFAR-10 has two here
    assert [sum(item.domain == task for item in dataset.train_x) for task in range(5)] == [10, 10, 10, 10, 10]
    first, mnist = (next(item for item in dataset.train_x if item.domain == task) for task in (0, 1))
    assert (first.label, first.classname, pixel(first)) == (0, "zero", (0, 0, 0))
    assert (mnist.label, mnist.classname, pixel(mnist)) == (19, "nine", (0, 0, 0))
    assert dataset.classnames[32:] == ["T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker",
                                       "bag", "ankle boot"]


def test_imagenet_r_is_divided_within_each_class_and_always_alike():
    items = [Datum(impath=f"/a/{label}/{i}.jpg", label=label, classname=str(label))
             for label in (1, 0) for i in range(10)]
    moved = [Datum(impath=item.impath.replace("/a/", "/b/"), label=item.label, classname=item.classname)
             for item in reversed(items)]
    names = [[[item.impath[3:] for item in part] for part in divided(own)] for own in (items, moved)]
    assert names[0] == names[1] and [len(part) for part in names[0]] == [16, 4]
    assert sorted(names[0][0] + names[0][1]) == sorted(item.impath[3:] for item in items)
    assert not set(arrays.CARDS) & set(CARDS)


def write_lists(folder, train, test):
    for name, rows in zip(LISTS, (train, test), strict=True):
        (folder / name).write_text("data:\n" + "".join(f"- data/imagenet-r/train/{row}\n" for row in rows) +
                                   "targets:\n" + "- 3\n" * len(rows))


def test_imagenet_r_is_divided_by_published_lists_where_they_are(tmp_path):
    names = ["n01/art_1.jpg", "n01/art_2.jpg", "n02/art_1.jpg", "n02/toy_1.jpg"]
    items = [Datum(str(tmp_path / "imagenet-r" / name), int(name[2]) - 1, classname=name[:3]) for name in names]
    assert listed(items, tmp_path) is None
    write_lists(tmp_path, [names[3], names[0], names[1]], [names[2]])
    assert listed(items, tmp_path) == ([items[3], items[0], items[1]], [items[2]])
    for learned, tested, got in (([], names, "lists no images"), (["n01/art_9.jpg"], names, "first n01/art_9.jpg"),
                                 (names, names[:2], "2 images are in both")):
        write_lists(tmp_path, learned, tested)
        with pytest.raises(UserError, match=got):
            listed(items, tmp_path)
    (tmp_path / LISTS[1]).unlink()
    with pytest.raises(UserError, match=f"{LISTS[1]} is missing"):
        listed(items, tmp_path)


@pytest.mark.parametrize("stem, name", [("cifar100", "cifar100"), ("stl10", "stl10"), ("five_datasets", "svhn"),
                                        ("imagenet_r_tasks", "imagenet-rendition")])
def test_what_is_missing_is_named(tmp_path, stem, name):
    with pytest.raises(DatasetNotFound, match=name):
        build(tmp_path, stem)
