"""tools/data.py: get against a server on this machine, check on whole and broken trees, list, and the README."""
import dataclasses
import json
import shutil

import pytest
from local_server import md5, tar, tree
from PIL import Image
from trees import make_tree

from datasets import benchmarks
from datasets.cards import CARDS, Archive
from tools import data


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def card(monkeypatch):
    """card(name, **changes): the dataset's card for this test."""
    def change(name, **changes):
        monkeypatch.setitem(CARDS, name, dataclasses.replace(CARDS[name], **changes))
        return CARDS[name]

    return change


def run(capsys, *words):
    code = data.main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def image_bytes(tmp_path, colour=(200, 10, 10)) -> bytes:
    Image.new("RGB", (30, 20), colour).save(tmp_path / "an.jpg")
    return (tmp_path / "an.jpg").read_bytes()


@pytest.fixture
def pets_here(card, tmp_path):
    """A small OxfordPets with real images, whose card says how many they are."""
    root, content = tmp_path / "data", image_bytes(tmp_path)
    make_tree("OxfordPets", root)
    for path in (root / "oxford_pets" / "images").iterdir():
        path.write_bytes(content)
    splits = benchmarks.draw_split(CARDS["OxfordPets"], root / "oxford_pets")
    train, val, test = map(len, splits)
    return root, card("OxfordPets", classes=5, train=train, val=val, test=test)


def test_check_of_a_whole_dataset_shows_tree_counts_files_names_and_changes_nothing(pets_here, capsys):
    root, card = pets_here
    before = tree(root)
    code, out, err = run(capsys, "check", "oxford_pets", "--root", root)
    assert code == 0 and err == "" and tree(root) == before
    for words in ("images, split_zhou_OxfordPets.json", "annotations/ (2), images/ (", "5, as on the card",
                  f"{card.train:,}, as on the card", "there", "20 images, 30 to 30 pixels wide", "'abyssinian', e.g. ",
                  "OxfordPets is in order."):
        assert words in out, words


@pytest.mark.parametrize("break_it, words", [
    (lambda folder: [path.unlink() for path in sorted(folder.glob("images/pug_*"))[:7]],
     ["7 of ", "images of the split are missing, first ", "pug_", "unpack the whole dataset again"]),
    (lambda folder: shutil.move(folder / "images", folder / "Images"), ["letter case counts: rename it images"]),
    (lambda folder: [path.rename(path.with_suffix(".JPG")) for path in folder.glob("images/*.jpg")],
     [".JPG is there instead of Abyssinian_", "another copy of the dataset"]),
    (lambda folder: [path.write_bytes(b"") for path in folder.glob("images/*.jpg")], ["is empty (0 bytes)"]),
    (lambda folder: (folder / "annotations" / "test.txt").write_text("pug_1 26 1 1\n"), ["instead of"]),
])
def test_check_of_a_broken_dataset_says_what_and_why_and_exits_2(pets_here, capsys, break_it, words):
    root, _ = pets_here
    break_it(root / "oxford_pets")
    code, out, err = run(capsys, "check", "OxfordPets", "--root", root)
    assert code == 2 and "in order" not in out and "expected" in out
    assert all(word in err for word in words), err


def test_stanford_dogs_are_recognised(tmp_path, capsys):
    (tmp_path / "oxford_pets" / "images" / "n02085620-Chihuahua").mkdir(parents=True)
    code, out, err = run(capsys, "check", "oxford_pets", "--root", tmp_path)
    assert code == 2 and "this looks like Stanford Dogs" in err and "found     images/ (1)" in out


def test_embedded_sets_are_got_and_checked_too(tmp_path, capsys):
    code, out, _ = run(capsys, "get", "digits", "--root", tmp_path)
    assert code == 0 and str(tmp_path / "digits-v") in out
    code, out, _ = run(capsys, "check", "Digits", "--root", tmp_path)
    assert code == 0 and "719" in out and "Digits is in order." in out


def test_an_unknown_name_is_told_with_the_nearest_and_no_name_at_all_too(tmp_path, capsys):
    assert run(capsys, "get", "oxford_pet")[::2] == (2, run(capsys, "check", "oxford_pet")[2])
    assert "Did you mean oxford_pets?" in run(capsys, "get", "oxford_pet")[2]
    assert "takes names" in run(capsys, "check")[2]


def test_list_shows_every_dataset_once_with_its_state(pets_here, capsys):
    root, card = pets_here
    (root / "dtd").mkdir()
    run(capsys, "get", "digits", "--root", root)
    code, out, _ = run(capsys, "list", "--root", root)
    lines = {line.split()[1]: line for line in out.splitlines()[2:]}
    assert code == 0 and set(lines) == set(data.yaml_names().values())
    assert f"{card.train:,}" in lines["OxfordPets"] and lines["OxfordPets"].endswith("split is drawn at first use")
    assert lines["DescribableTextures"].endswith("incomplete: no images") and lines["SUN397"].endswith("absent")
    assert lines["Digits"].split()[2:] == ["10", "719", "359", "719", "drawn"]
    stems = {name for name, line in lines.items() if line.endswith("comes with the project, drawn at first use")}
    assert "Shapes" in stems and all(name.startswith(("Digits", "Shapes", "MovingShapes")) for name in stems)
    assert lines["Kinetics400"].endswith("absent") and lines["FiveDatasets"].endswith("absent")


def textures(tmp_path) -> bytes:
    content = image_bytes(tmp_path)
    return tar(**{f"dtd/images/{name}/{i}.jpg": content for name in ("banded", "dotted") for i in range(10)})


def test_get_brings_a_dataset_in_coops_layout_with_its_published_split_and_check_agrees(server, card, tmp_path, capsys):
    body = textures(tmp_path)
    rows = [[f"{name}/{i}.jpg", label, name] for label, name in enumerate(("banded", "dotted")) for i in range(10)]
    split = {"train": rows[::2], "val": rows[1::4], "test": rows[3::4]}
    server.files |= {"/dtd.tar.gz": (body, ""), "/split?id=1": (json.dumps(split).encode(), "")}
    server.cuts = 1
    published = Archive(f"{server.url}/split?id=1", ("split_zhou_DescribableTextures.json",), plain=True)
    card("DescribableTextures", classes=2, train=10, val=5, test=5, published=(published,), archives=(
        Archive(f"{server.url}/gone.tar.gz", ("images",), md5(body), "dtd", mirrors=(f"{server.url}/dtd.tar.gz",)),))
    root = tmp_path / "data"
    code, out, err = run(capsys, "get", "dtd", "--root", root)
    assert code == 0 and "check DescribableTextures" in out, err
    assert {p.split("/")[1] for p in tree(root) if "/" in p} == {"images", "split_zhou_DescribableTextures.json"}
    code, out, err = run(capsys, "check", "dtd", "--root", root)
    assert code == 0 and "10, as on the card" in out, err
    assert run(capsys, "get", "dtd", "--root", root)[0] == 0 and server.starts.count(0) == 2


def test_get_of_what_cannot_be_fetched_says_why_and_what_to_do_and_leaves_no_folder(server, card, tmp_path, capsys):
    server.files["/dtd.tar.gz"] = (b"<html>Please log in", "text/html")
    card("DescribableTextures", published=(Archive(f"{server.url}/split", ("split",), plain=True),),
         archives=(Archive(f"{server.url}/dtd.tar.gz", ("images",), inside="dtd"),))
    code, _, err = run(capsys, "get", "dtd", "stanford_cars", "--root", tmp_path / "data")
    assert code == 2 and not (tmp_path / "data").exists()
    assert "gave a web page instead of a file" in err and "dtd/images" in err
    assert "kaggle.com/datasets/jessicali9530" in err and "click Download" in err and "cars_train" in err


def test_get_brings_the_part_that_can_be_fetched(server, card, tmp_path, capsys):
    server.files["/names?id=3"] = (b"n01440764 tench\n", "text/plain")
    card("ImageNet", archives=(Archive(f"{server.url}/names?id=3", ("classnames.txt",), plain=True),))
    code, _, err = run(capsys, "get", "imagenet", "--root", tmp_path / "data")
    assert code == 2 and "looked in" in err and "images/train, images/val.\n" in err
    assert len(err.strip().splitlines()) <= 7
    assert tree(tmp_path / "data") == ["imagenet", "imagenet/classnames.txt"]


def test_data_in_another_place_is_told_instead_of_fetched(pets, server, capsys):
    (pets / "oxford_pets").rename(pets / "oxford-iiit-pet")
    code, _, err = run(capsys, "get", "oxford_pets", "--root", pets)
    assert code == 2 and "looks like it under another name" in err and server.starts == []


def test_the_readme_is_up_to_date_and_has_every_card():
    text = data.README.read_text(encoding="utf-8")
    assert text == data.readme(), "run `python tools/data.py readme`"
    assert all(f"## {name}\n" in text and card.template in text for name, card in CARDS.items())


def test_a_folder_of_ones_own_is_checked_as_training_would_read_it(tmp_path, capsys):
    content = image_bytes(tmp_path)
    for name in ("cat", "dog"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for i in range(10):
            (tmp_path / "mine" / name / f"{i}.jpg").write_bytes(content)
    code, out, _ = run(capsys, "check", tmp_path / "mine")
    assert code == 0 and "cat/ (10), dog/ (10)" in out and "20 images, 30 to 30 pixels wide" in out
    (tmp_path / "mine" / "dog" / "3.jpg").write_bytes(b"")
    code, _, err = run(capsys, "check", tmp_path / "mine")
    assert code == 2 and "dog/3.jpg is not a readable image (it is empty (0 bytes))" in err
