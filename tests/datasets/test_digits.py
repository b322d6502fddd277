"""The digits that come with the project: one fixed split, real pixels, drawn once, no touch on the random streams."""

import random
import stat
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from yacs.config import CfgNode

from datasets.digits import WORDS, Digits, DigitsLowContrast
from datasets.embedded import digit_splits, write_once

SIZES = {"train": 719, "val": 359, "test": 719}
FIRST = {"train": [3, 5, 7, 9], "val": [2, 6, 8, 12], "test": [0, 1, 4, 10]}


def make_cfg(root, shots=-1, classes="all"):
    dataset = {"ROOT": str(root), "NUM_SHOTS": shots, "SUBSAMPLE_CLASSES": classes}
    return CfgNode({"SEED": 1, "DATASET": dataset})


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("digits_root")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_the_split_covers_every_image_once_and_keeps_class_shares():
    splits = digit_splits()
    assert sorted(np.concatenate(list(splits.values()))) == list(range(1797))
    labels = load_digits().target
    for name, share in (("train", 0.4), ("val", 0.2), ("test", 0.4)):
        counts = np.bincount(labels[splits[name]], minlength=10)
        assert (abs(counts - share * np.bincount(labels)) <= 1).all()


def test_the_split_is_the_one_that_results_were_measured_on():
    splits = digit_splits()
    assert {name: len(index) for name, index in splits.items()} == SIZES
    assert {name: index[:4].tolist() for name, index in splits.items()} == FIRST


def test_files_hold_the_real_pixels_and_labels(root):
    dataset = Digits(make_cfg(root))
    assert tuple(dataset.classnames) == WORDS and dataset.template == "a photo of the digit {}."
    source = load_digits()
    for item in dataset.test[::50]:
        number = int(Path(item.impath).name[:4])
        assert item.label == source.target[number] and item.classname == WORDS[item.label]
        pixels = np.array(Image.open(item.impath)) / 255 * 16
        np.testing.assert_allclose(pixels, source.images[number], atol=16 / 255 / 2 + 1e-9)


def test_sixteen_shots_give_160_train_and_40_val_images_decided_by_the_seed(root):
    drawn = []
    for seed in (1, 1, 2):
        random.seed(seed)
        dataset = Digits(make_cfg(root, shots=16))
        assert (len(dataset.train_x), len(dataset.val), len(dataset.test)) == (160, 40, SIZES["test"])
        drawn.append(sorted(item.impath for item in dataset.train_x))
    assert drawn[0] == drawn[1] != drawn[2]


def test_base_and_new_halves_share_no_class(root):
    base, new = (Digits(make_cfg(root, shots=1, classes=half)) for half in ("base", "new"))
    assert set(base.classnames) | set(new.classnames) == set(WORDS)
    assert not set(base.classnames) & set(new.classnames)
    assert base.all_class_names == new.all_class_names == base.classnames + new.classnames      # LASP asks for them


def test_low_contrast_has_the_same_split_and_a_fifth_of_the_contrast(root):
    clear, faded = Digits(make_cfg(root)), DigitsLowContrast(make_cfg(root))
    names = [[Path(i.impath).name for i in d.test] for d in (clear, faded)]
    assert names[0] == names[1]
    before, after = (
        np.stack([np.array(Image.open(i.impath)) for i in d.test]).ravel().astype(float) for d in (clear, faded)
    )
    slope, level = np.polyfit(before, after, 1)
    assert slope == pytest.approx(0.22, abs=0.005) and level == pytest.approx(255 * (0.45 - 0.11), abs=1)
    assert np.std(after - slope * before - level) == pytest.approx(255 * 0.06, rel=0.02)


def test_drawing_the_images_touches_no_global_random_stream(tmp_path):
    random.seed(5)
    np.random.seed(5)
    before = random.getstate(), np.random.get_state()[1].tolist()
    DigitsLowContrast(make_cfg(tmp_path))
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


def test_images_are_written_once_and_a_slower_run_keeps_those_of_the_faster(tmp_path):
    pixel = np.zeros((1, 1), np.uint8)

    def draw_while_another_run_finishes():
        yield "a.png", pixel
        write_once(str(tmp_path), "set", lambda: iter([("first.png", pixel)]))

    folder = write_once(str(tmp_path), "set", draw_while_another_run_finishes)
    assert [path.name for path in folder.iterdir()] == ["first.png"]
    assert [path.name for path in tmp_path.iterdir()] == ["cache"] * (tmp_path / "cache").exists() + ["set-v2"]
    assert write_once(str(tmp_path), "set", lambda: pytest.fail("drawn twice")) == folder


def test_a_failed_drawing_leaves_nothing_behind(tmp_path):
    def draw():
        yield "a.png", np.zeros((1, 1), np.uint8)
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        write_once(str(tmp_path), "set", draw)
    assert not list(tmp_path.glob("*set*"))


def test_a_root_that_cannot_be_written_to_falls_back_to_the_cache(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    folder = write_once(str(blocked / "root"), "set", lambda: iter([("a.png", np.zeros((1, 1), np.uint8))]))
    assert str(folder).startswith(str(tmp_path / "cache"))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
