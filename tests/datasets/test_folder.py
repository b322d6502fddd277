"""Images of one's own: trees and lists are read right or refused clearly; missing splits are drawn, always the same."""
import json
import logging
import os
import random
import re

import numpy as np
import pytest
from PIL import Image

import datasets.folder  # noqa: F401 - registers ImageDir
from dassl.config import get_cfg_default
from dassl.data.check import check_dataset
from dassl.data.datasets import DATASET_REGISTRY
from dassl.utils import UserError, set_random_seed
from datasets.folder import split_rows
from datasets.own_folders import as_text
from datasets.own_lists import read_own


def build(path, **options):
    cfg = get_cfg_default()
    datasets.extend_cfg(cfg)
    datasets.folder.extend_cfg(cfg)
    cfg.DATASET.DIR = str(path)
    for key, value in options.items():
        cfg.DATASET[key] = value
    cfg.SEED = 1
    set_random_seed(1)
    return DATASET_REGISTRY.get("ImageDir")(cfg)


def images(folder, count, suffix=".png", first=0):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(first, first + count):
        Image.fromarray(np.full((4, 4, 3), i % 256, np.uint8)).save(folder / f"bild ä {i}{suffix}")


@pytest.fixture
def tree(tmp_path):
    """Three classes with 20, 10 and 10 images; one file in a sub-folder and one in capitals."""
    folder = tmp_path / "my_pets"
    images(folder / "cat", 19)
    images(folder / "cat" / "more", 1, ".JPG", 50)
    images(folder / "dog", 10)
    images(folder / "Big bird", 10, ".webp")
    return folder


def sizes(dataset):
    return [len(dataset.train_x), len(dataset.val or ()), len(dataset.test)]


def test_folders_are_classes_and_the_rest_is_drawn_by_class_and_told(tree, caplog):
    with caplog.at_level(logging.INFO):
        dataset = build(tree)
    assert dataset.classnames == ["Big bird", "cat", "dog"] and dataset.template == "a photo of a {}."
    assert sizes(dataset) == [20, 8, 12] and dataset.name == "my_pets"
    for split, counts in (("train_x", [5, 10, 5]), ("val", [2, 4, 2]), ("test", [3, 6, 3])):
        assert [sum(d.label == k for d in getattr(dataset, split)) for k in range(3)] == counts
    assert len({d.impath for split in (dataset.train_x, dataset.val, dataset.test) for d in split}) == 40
    assert "my_pets: 3 classes; 20 train, 8 val, 12 test images. val (20%) and test (30%) drawn here" in caplog.text


def test_the_draw_is_the_same_in_another_place_for_another_seed_and_hardly_moves_for_one_image_more(tree, tmp_path):
    def drawn(folder):
        random.seed()
        splits, _ = split_rows(read_own(folder), folder)
        return {row.path[len(str(folder)):]: split for split, rows in splits.items() for row in rows}

    first = drawn(tree)
    moved = tree.rename(tmp_path / "elsewhere")
    assert drawn(moved) == first
    images(moved / "cat", 1, first=99)
    later = drawn(moved)
    assert sum(later[name] != split for name, split in first.items()) <= 2


def test_given_splits_are_kept_and_only_what_lacks_is_drawn(tmp_path):
    for split, count in (("train", 10), ("Validation", 3)):
        for name in ("a", "b"):
            images(tmp_path / "set" / split / name, count, first=100 * count)
    dataset = build(tmp_path / "set")
    assert sizes(dataset) == [14, 6, 6] and all("/Validation/" in d.impath for d in dataset.val)
    for name in ("a", "b"):
        images(tmp_path / "set" / "test" / name, 4)
    assert sizes(build(tmp_path / "set")) == [20, 6, 8]


def test_shots_and_halves_are_those_of_every_dataset(tree):
    dataset = build(tree, NUM_SHOTS=4, SUBSAMPLE_CLASSES="base")
    assert dataset.classnames == ["Big bird", "cat"] and sizes(dataset) == [8, 6, 9]
    assert {d.label for d in dataset.look} == {0, 1} and dataset.look_split == "val"
    assert [d.impath for d in dataset.look] == [d.impath for d in build(tree, SUBSAMPLE_CLASSES="base").val]


def test_nothing_random_is_touched_before_the_few_shot_draw(tree):
    build(tree)
    after = random.getstate()
    set_random_seed(1)
    assert random.getstate() == after


CSV = "Path;Label;ClassName;Split\n"


def rows_of(dataset):
    return [(d.label, d.classname) for split in (dataset.train_x, dataset.val, dataset.test) for d in split or ()]


@pytest.mark.parametrize("name, content", [
    ("list.csv", CSV + "\n".join(f"x/bild ä {i}.png;{i % 2 + 1};{'odd' if i % 2 else 'even'};{'test' if i > 7 else ''}"
                                 for i in range(10))),
    ("list.csv", "file,class\n" + "\n".join(f"x/bild ä {i}.png,{'odd' if i % 2 else 'even'}" for i in range(10))),
    ("list.json", json.dumps([{"image": f"x/bild ä {i}.png", "label": i % 2, "name": ("even", "odd")[i % 2]}
                              for i in range(10)])),
    ("list.json", json.dumps({s: [[f"x/bild ä {i}.png", i % 2, ("even", "odd")[i % 2]] for i in r] for s, r in
                              (("train", range(6)), ("val", range(6, 8)), ("test", range(8, 10)))})),
])
def test_lists_in_many_spellings(tmp_path, name, content):
    images(tmp_path / "x", 10)
    (tmp_path / name).write_text(content, encoding="utf-8-sig")
    dataset = build(tmp_path / name)
    assert dataset.classnames == ["even", "odd"] and len(rows_of(dataset)) == 10 and dataset.name == "list"
    assert {(0, "even"), (1, "odd")} == set(rows_of(dataset))
    if "split" in content.lower() or '"train"' in content:
        assert {d.impath[-5] for d in dataset.test} == {"8", "9"}


def test_names_may_be_given_in_order_or_by_folder(tree, tmp_path):
    names = tmp_path / "names.txt"
    for content in ("eagle\nhouse cat\npoodle\n", "cat: house cat\ndog: poodle\nBig bird: eagle\n"):
        names.write_text(content)
        assert build(tree, CLASSNAMES=str(names)).classnames == ["eagle", "house cat", "poodle"]
    (tmp_path / "names.json").write_text('{"cat": "house cat", "dog": "poodle", "Big bird": "eagle"}')
    assert build(tree, CLASSNAMES=str(tmp_path / "names.json")).classnames == ["eagle", "house cat", "poodle"]
    for content, words in (("one\ntwo\n", "has 2 names and there are 3 classes"), ("cat: c\ndog: d\n", "'Big bird'")):
        names.write_text(content)
        with pytest.raises(UserError, match=words):
            build(tree, CLASSNAMES=str(names))


@pytest.mark.parametrize("template", ["a photo", "{} and {}", "{name}", "{} {x}"])
def test_a_template_needs_one_place_for_the_name(tree, template):
    with pytest.raises(UserError, match="must have one {} for the class name"):
        build(tree, TEMPLATE=template)


def test_what_names_do_not_say_and_files_that_are_no_images_are_told(tree, caplog):
    (tree / "dog").rename(tree / "n02085620")
    (tree / "empty").mkdir()
    for name in ("Thumbs.db", ".hidden.png", "photo.HEIC"):
        (tree / "cat" / name).touch()
    build(tree)
    assert "'n02085620' say nothing to CLIP" in caplog.text and "empty holds no images" in caplog.text
    assert "none of those read as images: 1 .HEIC" in caplog.text


@pytest.mark.parametrize("other", ["Cat", "cat ", "cat\u200b", "ca\u0301t"])
def test_classes_that_clip_reads_alike_are_told(other, tree, caplog):
    (tree / "dog").rename(tree / other)
    if "\u0301" in other:
        (tree / "cat").rename(tree / "c\u00e1t")
    build(tree)
    assert "are they one class?" in caplog.text and ascii(other) in caplog.text


@pytest.mark.parametrize("name", ["nan", "None"])
def test_names_that_empty_cells_leave_are_told(name, tree, caplog):
    (tree / "dog").rename(tree / name)
    build(tree)
    assert f"{name!r} say nothing to CLIP" in caplog.text


def break_no_classes(folder):
    images(folder, 2)


def break_no_train(folder):
    (folder / "cat").rename(folder / "test")


def break_case(folder):
    for split, name in (("train", "Cat"), ("train", "dog"), ("val", "cat"), ("val", "dog")):
        images(folder.parent / "split" / split / name, 3)


@pytest.mark.parametrize("where, change, words", [
    ("nowhere", lambda f: None, "There is nothing at .*nowhere"),
    ("my_pet", lambda f: None, "Did you mean my_pets"),
    ("my_pets", break_no_classes, "lies in .* itself, not in the folder of a class"),
    ("my_pets", break_no_train, "has test but no train"),
    ("my_pets/dog", lambda f: None, "itself, not in the folder"),
    ("split", break_case, "val has images of 'cat', and train has none; train has Cat, dog"),
    ("one", lambda f: images(f.parent / "one" / "cat", 5), "holds one class, 'cat'"),
    ("few", lambda f: [images(f.parent / "few" / c, 1) for c in "ab"], "none can be spared for a test"),
    ("none", lambda f: (f.parent / "none" / "x").mkdir(parents=True), "holds no images of a known kind"),
    ("hollow", lambda f: [(f.parent / "hollow" / "train").mkdir(parents=True),
                          *(images(f.parent / "hollow" / c, 2) for c in "ab")], "train holds no images.*a, b.*remove"),
    ("a.zip", lambda f: (f.parent / "a.zip").touch(), "is neither a folder nor a .csv"),
])
def test_a_tree_that_does_not_fit_is_told_with_what_is_expected(tree, where, change, words):
    change(tree)
    with pytest.raises(UserError, match=words) as caught:
        build(tree.parent / where)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name, content, words", [
    ("l.csv", "a,b\n1,2\n", "has the columns a, b; its first line needs path"),
    ("l.csv", "path,label,classname\nx.png,0,cat\ny.png,0,dog\n", "label 0 is 'dog' here and 'cat' before"),
    ("l.csv", "path,class\nx.png,cat\nx.png,dog\n", "there twice, as 'cat'.*and as 'dog'"),
    ("l.csv", "path,class,split\nx.png,cat,train\nx.png,cat,test\n", "there twice"),
    ("l.csv", "path,class,split\nx.png,cat,train\ny.png,dog,exam\n", "'exam' is none of train, val and test"),
    ("l.csv", "path,class\nx.png,cat\nnone.png,dog\n", "1 of 2 images that are not there.*count from"),
    ("l.csv", "path,class\nx.png,\n", "lacks its path, or both label and classname"),
    ("l.csv", "path,label,Label \nx.png,cat,dog\ny.png,dog,cat\n", "two columns 'label'"),
    ("l.csv", "path,label\nx.png,\"['cat', 'wet']\"\ny.png,dog\n", "several labels of one image"),
    ("l.json", '[{"path": "x.png", "label": "cat", "Label": "dog"}]', "two columns 'label'"),
    ("l.json", '{"images": [], "annotations": []}', "'images', 'annotations', and only train, val and test"),
    ("l.json", "{", "is not valid JSON"), ("l.json", '["x.png"]', r"got 'x\.png'"), ("l.json", "[]", "lists no images"),
    ("l.json", "[" * 100_000, "is not valid JSON"),
    ("l.csv", "", "lists no images.*path and label"), ("l.csv", "path,label\n", "lists no images"),
])
def test_a_list_that_does_not_fit_is_told_with_the_image(tmp_path, name, content, words):
    for image in ("x.png", "y.png"):
        (tmp_path / image).touch()
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=words):
        build(tmp_path / name)


@pytest.mark.parametrize(("name", "content"), [("n.txt", "cat: a\ncat: b\ndog: c\n"),
                                              ("n.json", '{"cat": "a", "cat": "b", "dog": "c"}')])
def test_class_names_that_name_a_class_twice_are_refused(name, content, tree, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match="twice.*cat|cat.*twice"):
        build(tree, CLASSNAMES=str(tmp_path / name))


def test_without_a_path_the_flag_is_named():
    with pytest.raises(UserError, match="--dataset-dir PATH"):
        build("")


def test_folders_that_systems_make_for_themselves_are_left_out_and_told(tree, caplog):
    before = {row.path for row in read_own(tree)}
    for place in ("cat/.ipynb_checkpoints", "cat/more/@eaDir/x.png", "dog/__MACOSX", "dog/#recycle", ".net", "@eaDir",
                  "System Volume Information", "__pycache__", "$Recycle.Bin"):
        images(tree / place, 2)
    (tree / "._dog.png").touch()                            # macOS keeps one beside every file of a foreign disk
    assert {row.path for row in read_own(tree)} == before
    told = caplog.text
    assert "they are hidden" in told and all(name in told for name in (".net", "@eaDir (2)", ".ipynb_checkpoints"))


def test_folders_within_a_class_are_one_class_and_told_and_links_are_not_followed(tmp_path, caplog):
    for place in ("animals/cat", "animals/dog", "things/car"):
        images(tmp_path / "set" / place, 3)
    (tmp_path / "set" / "things" / "linked").symlink_to(tmp_path / "set" / "animals")
    assert {row.name for row in read_own(tmp_path / "set")} == {"animals", "things"}
    assert "The 2 folders in" in caplog.text and "(cat, dog) are one class, animals" in caplog.text
    assert "left out in" in caplog.text and "linked" in caplog.text and "one class, things" not in caplog.text


def test_one_folder_in_two_splits_is_refused(tree, tmp_path):
    for split in ("train", "test"):
        (tmp_path / "split" / split).mkdir(parents=True)
        (tmp_path / "split" / split / "cat").symlink_to(tree / "cat")
    with pytest.raises(UserError, match="are one folder"):
        read_own(tmp_path / "split")


def test_numbered_classes_are_in_the_order_of_their_numbers(tmp_path):
    for number in range(11):
        images(tmp_path / "set" / str(number), 3)
    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"name {number}" for number in range(11)))
    dataset = build(tmp_path / "set", CLASSNAMES=str(names))
    assert {d.classname for d in dataset.train_x if "/10/" in d.impath} == {"name 10"} == {dataset.classnames[10]}
    (tmp_path / "l.csv").write_text("path,label\n" + "".join(
        f"set/{number}/bild ä {i}.png, {number}.0 \n" for number in range(11) for i in range(3)))
    assert build(tmp_path / "l.csv").classnames == [str(number) for number in range(11)]    # as pandas writes them


def test_names_that_differ_in_capitals_or_blanks_only_are_told(tree, caplog):
    (tree / "dog").rename(tree / "big  bird")
    build(tree)
    assert "'Big bird' and 'big  bird' differ only in capitals, spaces" in caplog.text


def test_a_file_name_may_be_any_bytes_and_a_class_name_may_not(tree, tmp_path):
    os.rename(tree / "cat" / "bild ä 0.png", os.fsencode(tree / "cat") + b"/caf\xe9.png")
    first = build(tree)
    assert sizes(first) == [20, 8, 12] and [d.impath for d in build(tree).test] == [d.impath for d in first.test]
    os.rename(tree / "dog", os.fsencode(tree) + b"/p\xe4rro")
    with pytest.raises(UserError, match=r"the class 'p\\udce4rro' is not UTF-8"):
        build(tree)
    (tmp_path / "names.txt").write_text("eagle\ncat\ndog")
    assert build(tree, CLASSNAMES=str(tmp_path / "names.txt")).classnames == ["eagle", "cat", "dog"]


def test_a_name_is_read_as_utf8_in_a_locale_that_is_not(monkeypatch):
    monkeypatch.setattr(os, "fsencode", lambda name: name.encode("ascii", "surrogateescape"))
    assert as_text("círculo".encode().decode("ascii", "surrogateescape")) == "círculo"


@pytest.mark.parametrize(("content", "words"), [
    ("path,label\nx.png,crane, bird\ny.png,crane, machine\n", r"line 2 has 3 fields and the first line 2.*crane"),
    ("path;label\nx.png;a\ny.png;b;c\n", "line 3 has 3 fields"),
    ("path,label,label\nx.png,cat,0\ny.png,dog,1\n", "two columns 'label'"),
    ('path,label\nx.png,"cat\ny.png,dog\n', "line 2 opens a double quote"),
    ('path,label\nx.png,cat\ny.png,"dog\nx.png,"cat\n', "line 3 opens a double quote"),
    ("path,label\nx.png,cat|wet\ny.png,dog|wet\n", "'cat|wet' reads like several labels"),
])
def test_a_list_whose_rows_say_more_than_one_label_is_refused(tmp_path, content, words):
    for image in ("x.png", "y.png"):
        (tmp_path / image).touch()
    (tmp_path / "l.csv").write_text(content)
    with pytest.raises(UserError, match=re.escape(words) if "|" in words else words):
        read_own(tmp_path / "l.csv")


def test_quoted_commas_and_a_pipe_that_no_other_name_repeats_stay_in_a_name(tmp_path):
    for image in ("x.png", "y.png"):
        (tmp_path / image).touch()
    (tmp_path / "l.csv").write_text('path,label\nx.png,"crane, bird"\ny.png,either|or\n')
    assert [row.name for row in read_own(tmp_path / "l.csv")] == ["crane, bird", "either|or"]


def test_two_columns_for_one_thing_are_told_and_a_json_name_given_twice_is_refused(tmp_path, caplog):
    (tmp_path / "x.png").touch()
    (tmp_path / "l.csv").write_text("path,label,target\nx.png,cat,dog\n")
    assert read_own(tmp_path / "l.csv")[0].name == "cat" and "label and target may all hold the label" in caplog.text
    (tmp_path / "l.json").write_text('[{"path": "x.png", "label": "cat", "label": "dog"}]')
    with pytest.raises(UserError, match="a name is there twice"):
        read_own(tmp_path / "l.json")


@pytest.mark.parametrize(("place", "count"), [("", 3), ("test", 3), ("val", 3), ("", 1)])
def test_where_nothing_is_learned_all_labelled_images_are_the_test(tmp_path, place, count):
    for name in ("b", "a"):
        images(tmp_path / "set" / place / name, count)
    dataset = build(tmp_path / "set", TEST_ONLY=True, NUM_SHOTS=1)
    assert len(dataset.test) == 2 * count and dataset.classnames == ["a", "b"] and not dataset.val
    check_dataset(dataset, "set")


def test_where_nothing_is_learned_a_test_split_is_the_test_even_if_it_lacks_a_class(tmp_path):
    for place in ("train/a", "train/b", "train/c", "test/a", "test/c"):
        images(tmp_path / "set" / place, 2)
    dataset = build(tmp_path / "set", TEST_ONLY=True)
    assert len(dataset.test) == 4 and dataset.classnames == ["a", "c"]


def test_labels_follow_given_classes_by_name_also_where_images_of_one_are_missing(tree):
    dataset = build(tree, TEST_ONLY=True, CLASSES=("dog", "horse", "cat", "Big bird"))
    assert dataset.num_classes == 4 and dataset.classnames == ["dog", "horse", "cat", "Big bird"]
    assert {(d.classname, d.label) for d in dataset.test} == {("dog", 0), ("cat", 2), ("Big bird", 3)}
    assert {d.label for d in dataset.look} == {0, 2, 3}
