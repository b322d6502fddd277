"""Data that is absent, elsewhere, incomplete, other data or at odds with itself: one paragraph with the way out."""
import json
import os
import random
from pathlib import Path

import pytest
from trees import make_tree

from dassl.utils import UserError
from datasets import benchmarks
from datasets.benchmarks import DatasetNotFound
from datasets.cards import CARDS
from datasets.download import DownloadError

MEANWHILE = "bash scripts/dapt.sh digits 16"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def paragraph(build, *args, **kwargs) -> str:
    with pytest.raises(UserError) as caught:
        build(*args, **kwargs)
    text = str(caught.value)
    assert text.count("\n") <= 6 and len(text) < 1600
    return text


@pytest.mark.parametrize("name", sorted(CARDS))
def test_an_absent_dataset_names_what_where_how_and_meanwhile(tmp_path, build, name):
    text, card = paragraph(build, tmp_path / "none", name), CARDS[name]
    assert text.startswith(name) and str(tmp_path / "none" / card.folder) in text and MEANWHILE in text
    assert all(f"{card.folder}/{entry}" in text for entry in (*card.needs, *card.lists))
    assert all(archive.url in text for archive in card.archives) and card.home in text and card.split in text
    assert not (tmp_path / "none").exists()


def test_a_failed_download_tells_why_and_leaves_no_folder(tmp_path, build, monkeypatch):
    def fail(archives, folder):
        folder.mkdir(parents=True)
        raise DownloadError("https://x could not be fetched (no network)")

    monkeypatch.setattr(benchmarks, "get", fail)
    text = paragraph(build, tmp_path / "none")
    assert "Downloading it failed: https://x could not be fetched (no network)." in text
    assert not (tmp_path / "none").exists()


def test_a_download_that_works_needs_no_other_step(tmp_path, build, monkeypatch, pets):
    def move(archives, folder):
        if not folder.exists():
            (pets / "oxford_pets").rename(folder)

    monkeypatch.setattr(benchmarks, "get", move)
    assert build(tmp_path, shots=1).num_classes == 37


def test_after_a_download_the_split_is_drawn_from_its_lists_and_nobody_is_asked_for_it(tmp_path, build, monkeypatch,
                                                                                       pets):
    asked = []

    def serve(archives, folder):
        asked.extend(archive.url for archive in archives)
        (pets / "oxford_pets").rename(folder)

    monkeypatch.setattr(benchmarks, "get", serve)
    dataset = build(tmp_path)
    assert asked == [archive.url for archive in dataset.card.archives]


@pytest.mark.parametrize("published", [True, False])
def test_a_split_that_cannot_be_redrawn_is_asked_for_at_every_address_before_one_is_drawn(tmp_path, build, monkeypatch,
                                                                                          published, caplog):
    card = make_tree("EuroSAT", tmp_path)
    folder, asked = tmp_path / card.folder, []

    def serve(archives, folder):
        asked.extend(archive.url for archive in archives)
        if not published or len(asked) < 3:
            raise DownloadError("no answer")
        (folder / card.split).write_text(json.dumps(theirs))

    images = [f"{path.parent.name}/{path.name}" for path in sorted((folder / "2750").rglob("*.jpg"))]
    rows = [[path, kind, card.rename.get(path.split("/")[0], path.split("/")[0])]
            for kind, name in enumerate(sorted({path.split("/")[0] for path in images}))
            for path in images if path.startswith(f"{name}/")]
    theirs = {"train": rows[::2], "val": rows[1::4], "test": rows[3::4]}
    monkeypatch.setattr(benchmarks, "get", serve)
    dataset = build(tmp_path, "EuroSAT")
    assert asked == [archive.url for archive in card.published] and len(asked) == 3
    assert published == ([Path(d.impath).name for d in dataset.train_x] == [Path(row[0]).name for row in rows[::2]])
    assert published == ("cannot be fetched: no answer" not in caplog.text)
    assert dataset.lists["split"] == "not the published one" and "is not the published one" in caplog.text


def test_only_the_archives_of_what_lacks_are_fetched(pets, build, monkeypatch):
    asked = []
    monkeypatch.setattr(benchmarks, "get", lambda archives, folder: asked.extend(archives))
    (pets / "oxford_pets" / "annotations" / "test.txt").unlink()
    paragraph(build, pets)
    assert {archive.gives for archive in asked} == {("annotations",), ("split_zhou_OxfordPets.json",)}


def test_of_two_runs_that_draw_a_split_together_the_second_takes_the_firsts(pets, build, monkeypatch):
    """Else seeds of one sweep could be tested on different images."""
    draw = benchmarks.draw_split
    split = pets / "oxford_pets" / "split_zhou_OxfordPets.json"

    def overtaken(card, folder):
        train, val, test = draw(card, folder)
        monkeypatch.setattr(benchmarks, "draw_split", draw)
        state = random.getstate()
        build(pets, seed=7)                                            # another run, meanwhile
        random.setstate(state)
        return train[::-1], val, test

    monkeypatch.setattr(benchmarks, "draw_split", overtaken)
    late = build(pets, shots=2, seed=1)
    (pets / "oxford_pets" / "split_fewshot" / "shot_2-seed_1.json").unlink()
    after = build(pets, shots=2, seed=1)
    rows = [[(d.impath, d.label) for d in s] for x in (late, after) for s in (x.train_x, x.val, x.test)]
    assert rows[:3] == rows[3:] and not [p for p in split.parent.iterdir() if p.name.startswith(".")]


@pytest.fixture
def no_downloads(monkeypatch):
    monkeypatch.setattr(benchmarks, "get", lambda *_: pytest.fail("it would fetch what the user has"))


def test_a_root_that_is_the_datasets_own_folder_is_recognised(pets, build, no_downloads):
    text = paragraph(build, pets / "oxford_pets")
    assert "looks like the dataset's own folder" in text and f"give {pets}." in text


def test_an_own_folder_with_another_name_gets_the_link_to_make(pets, build, no_downloads):
    (pets / "oxford_pets").rename(pets / "my_pets")
    assert f"ln -s {pets / 'my_pets'} {pets / 'oxford_pets'}" in paragraph(build, pets / "my_pets")


def test_data_under_another_name_or_too_deep_or_in_other_case_is_recognised(pets, build, no_downloads):
    folder, other = pets / "oxford_pets", pets / "oxford-iiit-pet"
    folder.rename(other)
    assert f"{other} looks like it under another name: rename it oxford_pets" in paragraph(build, pets)
    folder.mkdir()
    other.rename(folder / "pets")
    assert f"one level too deep, in {folder / 'pets'}" in paragraph(build, pets)
    (folder / "pets").rename(other)
    folder.rmdir()
    other.rename(folder)
    (folder / "images").rename(folder / "Images")
    assert f"{folder / 'Images'} is there, but letter case counts: rename it images." in paragraph(build, pets)


def test_another_dataset_with_an_images_folder_is_not_taken_for_this_one(tmp_path, build):
    (tmp_path / "food-101" / "images").mkdir(parents=True)
    assert "looks like" not in paragraph(build, tmp_path, "DescribableTextures")
    (tmp_path / "imagenet" / "images").mkdir(parents=True)
    (tmp_path / "imagenet" / "classnames.txt").touch()
    assert "looks like" not in paragraph(build, tmp_path, "ImageNetSketch")


@pytest.mark.parametrize("images", ["images", "Images"])
def test_stanford_dogs_are_recognised(tmp_path, build, images, no_downloads):
    (tmp_path / "oxford_pets" / images / "n02085620-Chihuahua").mkdir(parents=True)
    assert "looks like Stanford Dogs" in paragraph(build, tmp_path)


def test_stanford_dogs_under_a_split_of_pets_are_recognised(pets, build):
    build(pets)                                                        # writes the split file
    (pets / "oxford_pets" / "images").rename(pets / "away")
    (pets / "oxford_pets" / "images" / "n02085620-Chihuahua").mkdir(parents=True)
    text = paragraph(build, pets)
    assert "looks like Stanford Dogs" in text and "1,286 of 1,286 images" in text


def test_missing_images_are_counted_and_the_first_five_named(pets, build):
    with open(pets / "oxford_pets" / "annotations" / "test.txt", "a") as file:
        file.writelines(f"pug_{n} 26 2 1\n" for n in range(901, 909))
    text = paragraph(build, pets)
    assert "8 of 1,294 images" in text and text.count("pug_") == 5 and MEANWHILE in text


def test_with_the_split_file_no_annotations_are_needed(pets, build):
    import shutil

    before = build(pets)
    shutil.rmtree(pets / "oxford_pets" / "annotations")
    assert [d.impath for d in build(pets).test] == [d.impath for d in before.test]


def edit_split(pets, change):
    path = pets / "oxford_pets" / "split_zhou_OxfordPets.json"
    content = json.loads(path.read_text())
    path.write_text(change(content) or json.dumps(content))


def test_labels_and_names_that_disagree_are_told_with_both_images(pets, build):
    build(pets)
    edit_split(pets, lambda split: split["test"][0].__setitem__(2, "wolf"))
    text = paragraph(build, pets)
    assert "labels and class names disagree" in text and "'wolf'" in text and "'abyssinian'" in text


@pytest.mark.parametrize("content", ["not json", "[]", '{"train": []}', '{"train": [[1]], "val": [], "test": []}'])
def test_a_damaged_split_file_is_named(pets, build, content):
    build(pets)
    edit_split(pets, lambda _: content)
    assert "split_zhou_OxfordPets.json is not a split file" in paragraph(build, pets)


def test_damaged_annotations_are_told(pets, build):
    (pets / "oxford_pets" / "annotations" / "test.txt").write_text("Abyssinian_1 1\n")
    assert "damaged" in paragraph(build, pets)


def test_an_unnamed_wordnet_folder_is_told(tmp_path, build):
    folder = tmp_path / "imagenet-adversarial"
    (folder / "imagenet-a" / "n01440764").mkdir(parents=True)
    (folder / "imagenet-a" / "n01440764" / "1.jpg").touch()
    (folder / "classnames.txt").write_text("n00000001 thing\n")
    assert "n01440764" in paragraph(build, tmp_path, "ImageNetA")


def test_an_empty_folder_of_images_is_told(tmp_path, build):
    (tmp_path / "dtd" / "images").mkdir(parents=True)
    assert "images" in paragraph(build, tmp_path, "DescribableTextures")


def test_a_root_may_be_relative_or_start_at_home(pets, build, monkeypatch):
    monkeypatch.chdir(pets.parent)
    monkeypatch.setenv("HOME", str(pets.parent))
    for root in ("data", "~/data"):
        assert os.path.isabs(build(root).test[0].impath)


def test_an_unexpected_number_of_classes_is_a_warning(tmp_path, build, caplog):
    for name in ("banded", "dotted"):
        for i in range(10):
            (tmp_path / "dtd" / "images" / name).mkdir(parents=True, exist_ok=True)
            (tmp_path / "dtd" / "images" / name / f"{i}.jpg").touch()
    assert build(tmp_path, "DescribableTextures").num_classes == 2
    assert "has 47 classes; 2 were found" in caplog.text


def test_the_error_is_a_user_error_and_a_file_not_found_error():
    assert issubclass(DatasetNotFound, UserError) and issubclass(DatasetNotFound, FileNotFoundError)


def test_a_list_in_the_order_of_other_classes_is_told_by_the_names_of_the_files(pets, build):
    build(pets)
    edit_split(pets, lambda split: [row.__setitem__(2, {"beagle": "pug", "pug": "beagle"}.get(row[2], row[2]))
                                    for s in split.values() for row in s] and None)
    text = paragraph(build, pets)
    assert "class names and images disagree" in text and "'beagle'" in text and "'pug'" in text


def test_an_unsorted_validation_folder_of_imagenet_is_told_with_the_script_that_sorts_it(tmp_path, build):
    folder = tmp_path / "imagenet"
    for name in ("train/n01440764/a.JPEG", "val/ILSVRC2012_val_00000001.JPEG"):
        (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "images" / name).touch()
    (folder / "classnames.txt").write_text("n01440764 tench\n")
    text = paragraph(build, tmp_path, "ImageNet")
    assert "holds images such as ILSVRC2012_val_00000001.JPEG and no class folders" in text and "valprep.sh" in text


def test_what_needs_a_login_asks_no_server_and_says_what_to_click(tmp_path, build, no_downloads):
    text = paragraph(build, tmp_path, "ImageNet")
    assert "sign up at https://image-net.org/signup" in text and "imagenet/images/train/n01440764/" in text
