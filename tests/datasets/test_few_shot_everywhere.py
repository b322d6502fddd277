"""Of every reader, the few-shot lists are those that a literal reading of CoOp's rules gives; all shots, seeds, halves.

Source: CoOp (ff61507) datasets/*.py and Dassl.pytorch's generate_fewshot_dataset; how they are drawn is described in
datasets/few_shot.py. The references are slow and literal, on lists of (path, label, name).
"""
import json
import math
import os
import random

import pytest
from trees import WORDNET, make_tree

from datasets.cards import CARDS

SHOTS, SEEDS, HALVES = (1, 2, 4, 8, 16), (1, 2, 3), ("all", "base", "new")
FEW_SHOT = [name for name, card in CARDS.items() if not card.test_only]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def draw(rows, shots):
    """k of each class in order of first appearance, or all of a smaller one."""
    by_label = {}
    for row in rows:
        by_label.setdefault(row[1], []).append(row)
    parts = [random.sample(items, shots) if len(items) >= shots else items for items in by_label.values()]
    return [row for part in parts for row in part]


def half_of(rows, half, labels):
    """The first ceil(C / 2) labels, or the others, numbered from 0."""
    middle = math.ceil(len(labels) / 2)
    wanted = {"all": labels, "base": labels[:middle], "new": labels[middle:]}[half]
    return [(path, wanted.index(label), name) for path, label, name in rows if label in wanted]


def rows_of(items, folder):
    return [(os.path.relpath(d.impath, folder), d.label, d.classname) for d in items]


def literal_splits(card, folder):
    """(train, val or None, test) that a draw starts from: the split file, or what the dataset itself lists."""
    if card.split:
        content = json.loads((folder / card.split).read_text())
        return [[(os.path.normpath(os.path.join(card.images, p)), label, name) for p, label, name in content[s]]
                for s in ("train", "val", "test")]
    if card.name == "FGVCAircraft":
        labels = (folder / "variants.txt").read_text().split("\n")
        lines = [(folder / f"images_variant_{s}.txt").read_text().strip().split("\n") for s in ("train", "val", "test")]
        return [[(f"images/{line.split(' ')[0]}.jpg", labels.index(line.split(" ", 1)[1]), line.split(" ", 1)[1])
                 for line in part] for part in lines]
    names = dict(line.split(" ", 1) for line in (folder / "classnames.txt").read_text().strip().split("\n"))
    train, val = ([(f"images/{split}/{wordnet}/{file}", label, names[wordnet]) for label, wordnet in enumerate(WORDNET)
                   for file in os.listdir(folder / "images" / split / wordnet)] for split in ("train", "val"))
    return train, None, val


@pytest.mark.parametrize("name", FEW_SHOT)
def test_lists_equal_a_literal_draw_for_all_shots_seeds_and_halves(name, tmp_path, build):
    card = make_tree(name, tmp_path)
    folder = tmp_path / card.folder
    build(tmp_path, name)                                    # writes the split file where the dataset has one
    train, val, test = literal_splits(card, folder)
    labels, seen = sorted({label for _, label, _ in train}), 0
    for shots in SHOTS:
        for seed in SEEDS:
            random.seed(seed)
            expected = draw(train, shots), None if val is None else draw(val, min(shots, 4)), test
            for half in HALVES:
                dataset = build(tmp_path, name, shots, seed, half)
                found = [rows_of(items, folder) for items in (dataset.train_x, dataset.val, dataset.test)]
                wanted = [half_of(test if rows is None else rows, half, labels) for rows in expected]
                assert found == wanted, (shots, seed, half)
                seen += 1
    assert seen == 45


def folders(card, folder, taken):
    """By CoOp's rules for a folder per class: half for training, a fifth for validation, the rest to test on."""
    splits = [], [], []
    kinds = sorted(kind for kind in os.listdir(folder / card.images) if kind not in card.ignore)
    for label, kind in enumerate(kinds):
        files = [f for f in os.listdir(folder / card.images / kind) if not f.startswith(".")]
        taken(files)
        a, b = round(len(files) * 0.5), round(len(files) * 0.2)
        for split, part in zip(splits, (files[:a], files[a:a + b], files[a + b:]), strict=True):
            split += [(f"{card.images}/{kind}/{f}", label, card.rename.get(kind, kind)) for f in part]
    return splits


@pytest.mark.parametrize("name", [name for name in FEW_SHOT if CARDS[name].read == "by_folder"])
@pytest.mark.parametrize("seed", SEEDS)
def test_without_a_split_file_one_is_drawn_with_seed_1_and_the_shots_with_the_runs_own(name, seed, tmp_path, build):
    card = make_tree(name, tmp_path)
    folder = tmp_path / card.folder
    random.seed(1)
    train, val, test = folders(card, folder, random.shuffle)
    random.seed(seed)
    expected = draw(train, 8), draw(val, 4), test
    dataset = build(tmp_path, name, 8, seed)
    assert tuple(rows_of(items, folder) for items in (dataset.train_x, dataset.val, dataset.test)) == expected


@pytest.mark.parametrize("name", [name for name in FEW_SHOT if CARDS[name].read in ("cars", "sun", "actions", "pets")])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_fifth_of_the_training_images_of_each_class_is_set_aside(name, seed, tmp_path, build, monkeypatch):
    card = make_tree(name, tmp_path)
    folder = tmp_path / card.folder
    with monkeypatch.context() as patch:                     # an unshuffled split has the official lists in order
        patch.setattr(random, "shuffle", lambda items: None)
        whole = build(tmp_path, name)
    (folder / card.split).unlink()
    by_label = {}
    for row in rows_of(whole.val, folder) + rows_of(whole.train_x, folder):
        by_label.setdefault(row[1], []).append(row)
    random.seed(1)
    train, val = [], []
    for label in dict.fromkeys(row[1] for row in rows_of(whole.val, folder)):
        items = list(by_label[label])
        order = list(range(len(items)))
        random.shuffle(order)
        count = round(len(items) * 0.2)
        val += [items[i] for i in order[:count]]
        train += [items[i] for i in order[count:]]
    random.seed(seed)
    expected = draw(train, 4), draw(val, 4)
    dataset = build(tmp_path, name, 4, seed)
    assert (rows_of(dataset.train_x, folder), rows_of(dataset.val, folder)) == expected
    assert rows_of(dataset.test, folder) == rows_of(whole.test, folder)


@pytest.mark.parametrize("name", ["ImageNetA", "ImageNetR", "ImageNetSketch"])
def test_a_variant_is_tested_on_its_own_classes_under_their_imagenet_names(name, tmp_path, build):
    card = make_tree(name, tmp_path)
    images = tmp_path / card.folder / card.images
    for wordnet in (WORDNET[1], WORDNET[3]):                 # the variant lacks two of the classes
        for file in (images / wordnet).iterdir():
            file.unlink()
        (images / wordnet).rmdir()
    dataset = build(tmp_path, name, shots=16)
    assert dataset.classnames == ["tench", "great white shark", "hammerhead shark"]
    assert [sum(d.label == k for d in dataset.test) for k in range(3)] == [40, 31, 26] and not dataset.val
    base = build(tmp_path, name, half="base")
    assert base.classnames == ["tench", "great white shark"] and len(base.test) == 71
