"""Pairs of an image and its caption: lists are read right or refused clearly, embedded captions are true."""
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import datasets.captions  # noqa: F401 - registers
import datasets.folder
from clip import load_clip
from dassl.config import get_cfg_default
from dassl.data.check import check_labels
from dassl.data.datasets import DATASET_REGISTRY
from dassl.utils import UserError, set_random_seed
from datasets.embedded import shape_combinations, shape_images
from datasets.rendering import COLOURS, GREYS
from datasets.shapes import Shapes, class_name


def build(name="ImageCaptions", root="", **options):
    cfg = get_cfg_default()
    datasets.extend_cfg(cfg)
    datasets.folder.extend_cfg(cfg)
    cfg.DATASET.ROOT = str(root)
    for key, value in options.items():
        cfg.DATASET[key] = value
    cfg.SEED = 1
    set_random_seed(1)
    return DATASET_REGISTRY.get(name)(cfg)


@pytest.fixture
def two_classes_are_drawn(monkeypatch):
    """Drawing all shapes takes long."""
    draw = Shapes._draw
    monkeypatch.setattr(Shapes, "_draw", lambda dataset: itertools.islice(draw(dataset), 160))


@pytest.fixture
def folder(tmp_path):
    """Ten images and no list."""
    for i in range(10):
        Image.fromarray(np.full((4, 4, 3), 20 * i, np.uint8)).save(tmp_path / f"{i}.png")
    return tmp_path


@pytest.mark.parametrize(("name", "lines"), [
    ("captions.csv", ["path,caption", *(f'{i}.png,"grey, {i}"' for i in range(10)), '3.png,"again, 3"']),
    ("captions.tsv", ["title\tfilepath", *(f"grey, {i}\t{i}.png" for i in range(10)), "again, 3\t3.png"]),
    ("metadata.jsonl", [*(json.dumps({"file_name": f"{i}.png", "text": f"grey, {i}"}) for i in range(10)), "",
                        json.dumps({"file_name": "3.png", "text": "again, 3"})])])
@pytest.mark.parametrize("by_folder", [True, False])
def test_lists_in_many_spellings_and_missing_splits_are_drawn_the_same_each_time(folder, name, lines, by_folder):
    (folder / name).write_text("\n".join(lines), encoding="utf-8")
    found, again = (build(DIR=str(folder if by_folder else folder / name)) for _ in range(2))
    assert {path.rsplit("/")[-1]: own for path, own in found.captions.items()} == {
        f"{i}.png": (f"grey, {i}", "again, 3") if i == 3 else (f"grey, {i}",) for i in range(10)}
    parts = [[item.impath for item in split] for split in (found.train_x, found.val, found.test)]
    assert [len(part) for part in parts] == [5, 2, 3] and len(set(sum(parts, []))) == 10
    assert parts == [[item.impath for item in split] for split in (again.train_x, again.val, again.test)]


def test_the_test_tells_apart_the_first_captions_of_validation_and_test_images(folder):
    rows = [f"{i}.png,{'train' if i < 6 else 'val' if i < 8 else 'test'},{['one', 'two', 'three'][i % 3]}"
            for i in range(10)]
    (folder / "captions.csv").write_text("\n".join(["path,split,caption", *rows, "8.png,test,another"]))
    found = build(DIR=str(folder))
    assert found.classnames == ["one", "two", "three"] and found.template == "{}" and found.num_classes == 3
    assert [(item.label, item.classname) for item in found.val + found.test] == [
        (0, "one"), (1, "two"), (2, "three"), (0, "one")]
    check_labels(found, "ImageCaptions")


@pytest.mark.parametrize(("content", "said"), [
    ("path,caption\n1.png,\n2.png,b", "pair 1 lacks its path or its caption"),
    ("path,caption\n,a\n2.png,b", "pair 1 lacks"),
    ("path,label\n1.png,a", "path, and caption"),
    ("path,caption,split\n1.png,a,exam", "'exam'"),
    ("path,caption,split\n1.png,a,test\n1.png,b,train", "1.png is there twice"),
    ("path,caption\n1.png,a\n99.png,b", "1 of 2 images that are not there"),
    ("path,caption\n1.png,a", "no test images of 1"),
    ("path,caption\n" + "".join(f"{i}.png,same\n" for i in range(10)), "'same'"),
    ("path,caption\n1.png,a,b", "line 2 has 3 fields")])
def test_a_list_that_does_not_fit_is_refused_with_the_pair(folder, content, said):
    (folder / "captions.csv").write_text(content)
    with pytest.raises(UserError, match=said):
        build(DIR=str(folder))


@pytest.mark.parametrize(("content", "said"), [
    ('{"path": "1.png", "caption": "a"}\n{"path": ', "line 2 is no JSON"), ('["1.png", "a"]', "line 1 is no object"),
    ('{"path": "1.png", "caption": 7}', "7"), ('{"path": "1.png", "caption": "a", "caption": "b"}', "twice")])
def test_a_line_of_json_that_does_not_fit_is_refused(folder, content, said):
    (folder / "pairs.jsonl").write_text(content)
    with pytest.raises(UserError, match=said):
        build(DIR=str(folder / "pairs.jsonl"))


def test_where_there_is_no_list_the_layout_is_told(folder):
    (folder / "captions.xml").touch()
    for where in ("", folder / "nowhere", folder, folder / "captions.xml"):
        with pytest.raises(UserError, match=r"DATASET\.DIR"):
            build(DIR=str(where))
    for name in ("captions.csv", "metadata.jsonl"):
        (folder / name).touch()
    with pytest.raises(UserError, match=r"captions\.csv and metadata\.jsonl"):
        build(DIR=str(folder))


@pytest.mark.parametrize("options", [{"NUM_SHOTS": 4}, {"SUBSAMPLE_CLASSES": "base"}])
def test_shots_and_halves_of_classes_that_are_not_there_are_refused(folder, options):
    (folder / "captions.csv").write_text("path,caption\n" + "".join(f"{i}.png,c{i}\n" for i in range(10)))
    with pytest.raises(UserError, match=str(next(iter(options.values())))):
        build(DIR=str(folder), **options)


def test_captions_of_shapes_name_what_is_drawn(tmp_path, two_classes_are_drawn):
    found = build("ShapesCaptions", tmp_path)
    assert {len(own) for own in found.captions.values()} == {4} and len(found.captions) == 48 * 80
    drawn = [item for item in (*found.train_x, *found.test) if Path(item.impath).exists()]
    assert len(drawn) == 140
    for item in drawn[::20]:
        captions, corners = found.captions[item.impath], np.array(Image.open(item.impath))[::63, ::63].mean(-1) / 255
        said = min(GREYS, key=lambda name: abs(GREYS[name] - np.median(corners)))           # noise lies over it
        assert all(item.classname in own and f"on a {said} background" in own for own in captions)
    orange = next(own for own in shape_combinations() if tuple(COLOURS)[own[1]] == "orange")
    assert any("an orange" in own for path, captions in found.captions.items() for own in captions
               if class_name(orange).replace(" ", "_") in path)
    assert shape_images(orange, "recoloured").shape == (80, 64, 64, 3)


def test_captions_of_digits_name_the_digit_in_words_that_the_embedded_model_knows(tmp_path, caplog,
                                                                                      two_classes_are_drawn):
    found, clip = build("DigitsCaptions", tmp_path, NUM_SHOTS=4), load_clip("tiny")
    assert len(found.train_x) == 40 and all(item.impath in found.captions for item in found.test)
    assert all(item.classname in " ".join(found.captions[item.impath]) for item in found.train_x)
    texts = [own for dataset in (found, build("ShapesCaptions", tmp_path)) for captions in dataset.captions.values()
             for own in captions]
    assert {i for text in set(texts) for i in clip.tokenizer.encode(text)} <= clip.known_tokens
