"""ImageNet's training images are listed once: a kept few-shot list needs the states of their folders only."""
import os
import pickle
import random

import pytest
from trees import COUNTS, NAMES, WORDNET, make_tree, touch

from dassl.data.datasets import Datum
from datasets import kept_lists, readers
from datasets.cards import CARDS
from datasets.listing import Listing, rows_digest


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    make_tree("ImageNet", tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def listed(monkeypatch):
    """The training folders that were listed."""
    seen, listdir = [], os.listdir

    def spied(path="."):
        if "images/train/" in str(path):
            seen.append(os.path.basename(str(path)))
        return listdir(path)

    monkeypatch.setattr(os, "listdir", spied)
    return seen


def paths(dataset):
    return [d.impath for split in (dataset.train_x, dataset.val, dataset.test) for d in split]


def test_a_kept_list_is_used_without_a_listing_until_a_folder_changes(root, build, listed, caplog):
    first = build(root, "ImageNet", shots=16)
    assert sorted(listed) == sorted(WORDNET)
    listed.clear()
    assert paths(build(root, "ImageNet", shots=16)) == paths(first) and not listed
    assert sum("fewer than 16 training images" in r.message for r in caplog.records) == 2       # reported by every run
    touch(root / "imagenet" / "images" / "train" / WORDNET[3], "new.JPEG")
    again = build(root, "ImageNet", shots=16)
    assert sorted(listed) == sorted(WORDNET) and "was drawn from another split and is drawn again" in caplog.text
    assert len(again.train_x) == len(first.train_x) + 1             # of a class that has 12 images, now 13


def test_an_image_of_a_kept_list_must_be_there_and_of_its_class(root, build, listed):
    folder = root / "imagenet" / "images" / "train" / WORDNET[0]
    split = Listing(folder.parent, dict(zip(WORDNET, NAMES, strict=True)), root / "imagenet")
    some = str(folder / f"{WORDNET[0]}_3.JPEG")
    assert split.label_of(some) == 0 and not listed
    assert split.label_of(str(folder / "none.JPEG")) is None and split.label_of(str(folder)) is None
    assert split.counts == dict(enumerate(COUNTS)) and [d.classname for d in split.samples] == list(NAMES)


def test_the_digest_is_that_of_all_rows_at_once(root):
    import hashlib

    items = readers.imagenet(CARDS["ImageNet"], root / "imagenet")[0]
    whole = repr([[os.path.relpath(d.impath, root / "imagenet"), d.label] for d in items])
    assert rows_digest(items, root / "imagenet") == hashlib.sha256(whole.encode()).hexdigest()[:16] == items.digest


def test_the_order_and_the_names_of_coops_own_listing_are_kept_and_its_pickle_is_read_once(root, build, monkeypatch):
    folder = root / "imagenet"
    theirs = [Datum(f"/home/x/imagenet/images/train/{wordnet}/{wordnet}_{i}.JPEG", label, classname=f"their {name}")
              for label, (wordnet, name, count) in enumerate(zip(WORDNET, NAMES, COUNTS, strict=True))
              for i in reversed(range(count))]
    (folder / "preprocessed.pkl").write_bytes(pickle.dumps({"train": theirs, "test": theirs[:9]}))
    by_label = [[d for d in theirs if d.label == label] for label in range(5)]
    random.seed(1)
    expected = [d for items in by_label for d in (random.sample(items, 16) if len(items) >= 16 else items)]
    dataset = build(root, "ImageNet", shots=16)
    assert [os.path.basename(d.impath) for d in dataset.train_x] == [os.path.basename(d.impath) for d in expected]
    assert dataset.classnames == [f"their {name}" for name in NAMES] and len(dataset.test) == sum(COUNTS)
    monkeypatch.setattr(readers, "read_coop_pickle", lambda path: pytest.fail("it is read again"))
    assert paths(build(root, "ImageNet", shots=16)) == paths(dataset)
    assert kept_lists.read_coop_pickle(folder / "preprocessed.pkl")["train"]
