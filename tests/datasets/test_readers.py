"""Every card reads a tree in CoOp's layout into the labels, names and splits that CoOp gives it."""
import json
from pathlib import Path

import numpy as np
import pytest
from trees import COUNTS, make_tree, touch, write

from datasets.cards import CARDS


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def names(dataset, split="test"):
    return {d.label: d.classname for d in getattr(dataset, split)}


def files(items, folder):
    return sorted(Path(d.impath).relative_to(folder).as_posix() for d in items)


def test_each_card_is_registered_under_its_name(build):
    from dassl.data.datasets import DATASET_REGISTRY

    assert all(name in DATASET_REGISTRY and DATASET_REGISTRY.get(name).card is card for name, card in CARDS.items())
    assert all(card.template.count("{}") == 1 for card in CARDS.values())


@pytest.mark.parametrize("name, classes, expected", [
    ("Caltech101", ["BACKGROUND_Google", "Faces", "Faces_easy", "Leopards", "airplanes", "ant", "watch"],
     ["face", "leopard", "airplane", "ant", "watch"]),
    ("EuroSAT", ["SeaLake", "AnnualCrop", "Forest"], ["Annual Crop Land", "Forest", "Sea or Lake"]),
    ("DescribableTextures", ["polka-dotted", "banded"], ["banded", "polka-dotted"]),
    ("Resisc45", ["sea_ice", "airplane"], ["airplane", "sea_ice"]),
    ("Food101", ["apple_pie", ".hidden", "@eaDir", "__macosx", "waffles"], ["apple_pie", "waffles"]),
])
def test_folders_are_classes_in_order_split_50_20_30(tmp_path, build, name, classes, expected):
    card = CARDS[name]
    for c in classes:
        touch(tmp_path / card.folder / card.images / c, *(f"{i}.jpg" for i in range(10)), ".DS_Store",
              "Thumbs.db")
    dataset = build(tmp_path, name)
    assert dataset.classnames == expected and dataset.template == card.template
    assert [len(s) // len(expected) for s in (dataset.train_x, dataset.val, dataset.test)] == [5, 2, 3]
    content = json.loads((tmp_path / card.folder / card.split).read_text())
    assert [len(content[s]) // len(expected) for s in ("train", "val", "test")] == [5, 2, 3]


def test_caltech256_leaves_numbers_clutter_and_stray_files_out_and_all_is_for_testing(tmp_path, build):
    card = make_tree("Caltech256", tmp_path)
    dataset = build(tmp_path, "Caltech256")
    assert dataset.classnames == ["ak47", "american flag", "dog", "people", "faces easy"]
    assert len(dataset.test) == sum(COUNTS) and card.test_only


def test_cars_put_the_year_first(tmp_path, build):
    scipy_io = pytest.importorskip("scipy.io")
    folder = tmp_path / "stanford_cars"
    (folder / "devkit").mkdir(parents=True)
    kind = [("class", object), ("fname", object)]

    def annotations(count):
        rows = [(np.array([[1 + i % 2]], dtype=np.uint8), np.array([f"{i:05d}.jpg"])) for i in range(count)]
        return {"annotations": np.array([rows], dtype=kind)}

    scipy_io.savemat(folder / "devkit" / "cars_meta.mat", {"class_names": np.array(
        [["AM General Hummer SUV 2000", "Acura RL Sedan 2012"]], dtype=object)})
    scipy_io.savemat(folder / "devkit" / "cars_train_annos.mat", annotations(10))
    scipy_io.savemat(folder / "cars_test_annos_withlabels.mat", annotations(4))
    touch(folder, *(f"cars_train/{i:05d}.jpg" for i in range(10)), *(f"cars_test/{i:05d}.jpg" for i in range(4)))
    dataset = build(tmp_path, "StanfordCars")
    assert dataset.classnames == ["2000 AM General Hummer SUV", "2012 Acura RL Sedan"]
    assert [len(dataset.train_x), len(dataset.val), len(dataset.test)] == [8, 2, 4]
    assert files(dataset.test, folder)[0] == "cars_test/00000.jpg"


def test_flowers_are_numbered_by_the_label_file(tmp_path, build):
    scipy_io = pytest.importorskip("scipy.io")
    folder = tmp_path / "oxford_flowers"
    touch(folder / "jpg", *(f"image_{i:05d}.jpg" for i in range(1, 21)))
    scipy_io.savemat(folder / "imagelabels.mat", {"labels": np.array([[2] * 10 + [1] * 10])})
    write(folder / "cat_to_name.json", json.dumps({"1": "pink primrose", "2": "hard-leaved pocket orchid"}))
    dataset = build(tmp_path, "OxfordFlowers")
    assert dataset.classnames == ["pink primrose", "hard-leaved pocket orchid"]
    assert [len(dataset.train_x), len(dataset.val), len(dataset.test)] == [10, 4, 6]
    assert all((int(Path(d.impath).stem[-5:]) <= 10) == (d.label == 1) for d in dataset.train_x)


def test_aircraft_keep_the_official_lists(tmp_path, build):
    folder = tmp_path / "fgvc_aircraft"
    write(folder / "variants.txt", "707-320", "Boeing 717")
    for i, split in enumerate(("train", "val", "test")):
        write(folder / f"images_variant_{split}.txt", f"{i}1 707-320", f"{i}2 Boeing 717")
        touch(folder / "images", f"{i}1.jpg", f"{i}2.jpg")
    dataset = build(tmp_path, "FGVCAircraft")
    assert dataset.classnames == ["707-320", "Boeing 717"]
    assert files(dataset.val, folder) == ["images/11.jpg", "images/12.jpg"]


def test_scenes_of_sun_put_indoor_first(tmp_path, build):
    folder = tmp_path / "sun397"
    images = [f"/a/{scene}/sun_{i}.jpg" for scene in ("abbey", "apse/indoor") for i in range(7)]
    write(folder / "ClassName.txt", "/a/abbey", "/a/apse/indoor")
    write(folder / "Training_01.txt", *(p for p in images if p[-5] != "6"))
    write(folder / "Testing_01.txt", *(p for p in images if p[-5] == "6"))
    touch(folder, *(f"SUN397{p}" for p in images))
    dataset = build(tmp_path, "SUN397")
    assert dataset.classnames == ["abbey", "indoor apse"]
    assert [len(dataset.train_x), len(dataset.val), len(dataset.test)] == [10, 2, 2]


def test_actions_of_ucf_are_split_into_words(tmp_path, build):
    folder = tmp_path / "ucf101"
    lists = folder / "ucfTrainTestlist"
    write(lists / "classInd.txt", "1 ApplyEyeMakeup", "2 YoYo")
    actions = ((1, "ApplyEyeMakeup"), (2, "YoYo"))
    write(lists / "trainlist01.txt", *(f"{action}/v_{i}.avi {n}" for n, action in actions for i in range(5)))
    write(lists / "testlist01.txt", "YoYo/v_9.avi", "ApplyEyeMakeup/v_9.avi")
    touch(folder / "UCF-101-midframes", *(f"{c}/v_{i}.jpg" for c in ("Apply_Eye_Makeup", "Yo_Yo") for i in range(10)))
    dataset = build(tmp_path, "UCF101")
    assert dataset.classnames == ["Apply_Eye_Makeup", "Yo_Yo"]
    assert [len(dataset.train_x), len(dataset.val), len(dataset.test)] == [8, 2, 2]


CLASSNAMES = ("n01440764 tench", "n01443537 goldfish", "n01484850 great white shark")


def test_imagenet_tests_on_its_validation_images_and_draws_no_others(tmp_path, build):
    folder = tmp_path / "imagenet"
    write(folder / "classnames.txt", *CLASSNAMES)
    for line in CLASSNAMES:
        touch(folder / "images", *(f"{split}/{line[:9]}/{i}.JPEG" for split in ("train", "val") for i in range(3)))
    dataset = build(tmp_path, "ImageNet", shots=2)
    assert dataset.classnames == ["tench", "goldfish", "great white shark"]
    assert len(dataset.train_x) == 6 and dataset.val == dataset.test and len(dataset.test) == 9
    half = build(tmp_path, "ImageNet", shots=2, half="new")
    assert half.classnames == ["great white shark"] and len(half.test) == 3


@pytest.mark.parametrize("name, images", [("ImageNetSketch", "images"), ("ImageNetA", "imagenet-a"),
                                          ("ImageNetR", "imagenet-r")])
def test_variants_are_tested_whole_over_the_classes_they_have(tmp_path, build, name, images):
    folder = tmp_path / CARDS[name].folder
    write(folder / "classnames.txt", *CLASSNAMES)
    write(folder / images / "README.txt", "not a class")
    touch(folder / images, *(f"{wordnet}/{i}.jpg" for wordnet in ("n01484850", "n01440764") for i in range(4)))
    dataset = build(tmp_path, name, shots=1)
    assert dataset.classnames == ["tench", "great white shark"] and len(dataset.test) == 8 and not dataset.val


def test_imagenetv2_is_numbered_by_the_lines_of_classnames(tmp_path, build):
    folder = tmp_path / "imagenetv2"
    write(folder / "classnames.txt", *CLASSNAMES)
    touch(folder / "imagenetv2-matched-frequency-format-val", "0/a.jpeg", "1/b.jpeg", "2/c.jpeg")
    assert names(build(tmp_path, "ImageNetV2")) == {0: "tench", 1: "goldfish", 2: "great white shark"}


def test_imagenetv2_may_have_wordnet_folders(tmp_path, build):
    folder = tmp_path / "imagenetv2"
    write(folder / "classnames.txt", *CLASSNAMES)
    touch(folder / "imagenetv2-matched-frequency-format-val", *(f"{line[:9]}/a.jpeg" for line in CLASSNAMES))
    assert names(build(tmp_path, "ImageNetV2")) == {0: "tench", 1: "goldfish", 2: "great white shark"}
