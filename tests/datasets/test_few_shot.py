"""Few-shot lists equal CoOp's, are kept, and are read from others' files without running anything in them."""
import json
import logging
import os
import random
from pathlib import Path

import pytest
from trees import make_tree

from dassl.data.datasets import DatasetBase
from dassl.utils import UserError
from datasets import readers
from datasets.benchmarks import draw_split
from datasets.cards import CARDS

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "fewshot_pets_seed1.json"


def rows(items, root):
    images = os.path.join(root, "oxford_pets", "images")
    return [[os.path.relpath(d.impath, images), d.label, d.classname] for d in items]


def kept(root, name):
    return root / "oxford_pets" / "split_fewshot" / name


@pytest.mark.parametrize("shots", [1, 16])
def test_split_and_lists_equal_those_that_coops_code_draws(pets, build, shots):
    """Origin: CoOp ff61507 and Dassl.pytorch c61a1b5 on this tree, seed 1, split and list from one random stream."""
    theirs = json.loads(GOLDEN.read_text())["fresh"][f"seed1_shot{shots}"]
    random.seed(1)
    train, val, test = readers.pets(CARDS["OxfordPets"], pets / "oxford_pets")
    draw = DatasetBase(train).generate_fewshot_dataset
    assert rows(draw(train, num_shots=shots), pets) == theirs["train"]
    assert rows(draw(val, num_shots=min(shots, 4)), pets) == theirs["val"]
    assert len(test) == theirs["n_test"]
    ours = build(pets, seed=5)
    assert rows([*ours.train_x, *ours.val, *ours.test], pets) == rows([*train, *val, *test], pets)


def test_every_run_has_one_split_and_its_own_list_whatever_run_comes_first(tmp_path, build):
    found = []
    for order in ((1, 2, 3), (2, 1, 3), (3, 2, 1)):
        root = tmp_path / str(order)
        make_tree("OxfordPets", root)
        state = random.getstate()
        draw_split(CARDS["OxfordPets"], root / "oxford_pets")
        assert random.getstate() == state
        runs = {seed: build(root, shots=4, seed=seed) for seed in order}
        found.append([rows([*d.train_x, *d.val, *d.test], root) for _, d in sorted(runs.items())])
    assert found[0] == found[1] == found[2] and found[0][0] != found[0][1]


def test_lists_from_a_split_file_equal_a_literal_draw(pets, build):
    build(pets)                                                        # writes the split file
    content = json.loads((pets / "oxford_pets" / "split_zhou_OxfordPets.json").read_text())
    random.seed(3)
    expected = {}
    for split, k in (("train", 16), ("val", 4)):
        by_label = {}
        for row in content[split]:
            by_label.setdefault(row[1], []).append(row)
        expected[split] = [r for c in by_label.values() for r in (random.sample(c, k) if len(c) >= k else c)]
    ours = build(pets, shots=16, seed=3)
    assert rows(ours.train_x, pets) == expected["train"]
    assert rows(ours.val, pets) == expected["val"]


def test_a_kept_list_is_read_again_and_other_seeds_and_shots_differ(pets, build):
    first = build(pets, shots=4, seed=1)
    path = kept(pets, "shot_4-seed_1.json")
    assert not Path(json.loads(path.read_text())["train"][0][0]).is_absolute()
    again, other = build(pets, shots=4, seed=1), build(pets, shots=4, seed=2)
    assert rows(again.train_x, pets) == rows(first.train_x, pets) and rows(again.val, pets) == rows(first.val, pets)
    assert rows(other.train_x, pets) != rows(first.train_x, pets)
    assert sorted(p.name for p in path.parent.iterdir()) == ["shot_4-seed_1.json", "shot_4-seed_2.json"]


def test_a_kept_list_serves_a_moved_root(pets, build, tmp_path):
    first = build(pets, shots=2)
    moved = tmp_path / "elsewhere"
    pets.rename(moved)
    assert rows(build(moved, shots=2).train_x, moved) == rows(first.train_x, pets)


def test_a_list_of_another_split_is_drawn_again(pets, build, caplog):
    build(pets, shots=1)
    split = pets / "oxford_pets" / "split_zhou_OxfordPets.json"
    content = json.loads(split.read_text())
    content["train"], content["test"] = content["test"], content["train"]
    split.write_text(json.dumps(content))
    dataset = build(pets, shots=1)
    assert not {d.impath for d in dataset.train_x} & {d.impath for d in dataset.test}
    assert "drawn from another split" in caplog.text


def test_classes_with_too_few_images_use_all_and_are_told_once(pets, build, caplog):
    with caplog.at_level(logging.WARNING):
        dataset = build(pets, shots=16)
    told = [r for r in caplog.records if "fewer than 16" in r.message]
    assert len(told) == 1 and "wheaten_terrier (14)" in told[0].message
    assert sum(d.label == 35 for d in dataset.train_x) == 14


def test_halves_are_taken_after_the_draw_and_relabelled(pets, build):
    every, base, new = (build(pets, shots=2, half=h) for h in ("all", "base", "new"))
    assert (base.num_classes, new.num_classes) == (19, 18)             # ceil(37 / 2) and the rest
    assert base.classnames + new.classnames == every.classnames
    assert {d.impath for d in base.train_x} | {d.impath for d in new.train_x} == {d.impath for d in every.train_x}
    assert {d.label for d in new.test} == set(range(18))
    with pytest.raises(UserError, match="all, base, new"):
        build(pets, half="old")


def test_an_unwritable_folder_keeps_split_and_lists_in_the_users_cache(pets, build, monkeypatch, tmp_path):
    import datasets.benchmarks
    import datasets.kept_lists
    from dassl.utils import write_json

    def refuse(content, path):
        if path.startswith(str(pets)):
            raise PermissionError(13, "Permission denied", path)
        write_json(content, path)

    for module in (datasets.benchmarks, datasets.kept_lists):
        monkeypatch.setattr(module, "write_json", refuse)
    first, second = build(pets, shots=1, seed=1), build(pets, shots=1, seed=2)
    assert not (pets / "oxford_pets" / "split_zhou_OxfordPets.json").exists()
    assert {d.impath for d in first.test} == {d.impath for d in second.test}
    assert len(list((tmp_path / "cache").rglob("*.json"))) == 3        # the split and two lists
