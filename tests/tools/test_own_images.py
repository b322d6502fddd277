"""tools/train.py on images of one's own: the first look, any trainer without Python, a run folder of its own name."""
import json
import logging
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from dassl.data.datasets import Datum
from datasets.digits import WORDS
from datasets.embedded import digit_images
from tools import train
from tools.running import first_look
from tools.runs import inputs
from trainers._base import PromptTrainer

COOP = ["--trainer", "CoOp", "--config-file", "configs/trainers/CoOp/tiny.yaml", "--seed", "1",
        "--template", "a photo of the digit {}."]
PROBE = ["--trainer", "LinearProbe", "--config-file", "configs/trainers/LinearProbe/tiny.yaml", "--seed", "1"]


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Twelve images of each digit, in folders that carry their words, in mixed formats and modes."""
    folder = tmp_path_factory.mktemp("own") / "my_digits"
    images, labels = digit_images()
    for label, word in enumerate(WORDS):
        (folder / word).mkdir(parents=True)
        for i, image in enumerate(images[labels == label][:12]):
            mode, suffix = (("L", ".png"), ("RGBA", ".PNG"), ("P", ".gif"))[i % 3]
            Image.fromarray(image).convert(mode).save(folder / word / f"Bild {i} ä{suffix}")
    return folder


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """run(*words) -> (exit code, output, errors) in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DATA", raising=False)

    def call(*words):
        capsys.readouterr()
        code = train.cli([str(word) for word in words])
        return code, *capsys.readouterr()

    return call


def test_a_folder_of_images_trains_with_no_python_and_is_looked_at_first(digits, run, tmp_path):
    code, *_ = run("--dataset-dir", digits, *COOP, "DATASET.NUM_SHOTS", "4", "OPTIM.MAX_EPOCH", "1")
    (folder,) = (tmp_path / "output" / "my_digits" / "CoOp").glob("tiny_4shots-a_photo_of_the_digit-*/seed1")
    record = json.loads((folder / "results.json").read_text())
    assert code == 0 and record["finished"] and record["dataset"] == record["cell"]["dataset"] == "my_digits"
    log = (folder / "log.txt").read_text()
    assert "my_digits: 10 classes; 60 train, 20 val, 40 test images. val (20%) and test (30%) drawn here" in log
    look = [line for line in log.splitlines() if "->" in line]
    assert len(look) == 3 and all(f'/{word}/' in line and line.endswith(f'"a photo of the digit {word}."')
                                  for line, word in zip(look, ("eight", "seven", "zero"), strict=True))
    assert log.index("Zero-shot accuracy on 20 val images") < log.index("=> result")
    assert "no better than guessing" not in log
    assert {"dataset_dir", "template"} <= set(json.loads((folder / inputs.FILE).read_text())["flags"])


def test_names_on_the_wrong_folders_are_noticed_before_training(digits, run, tmp_path):
    (tmp_path / "names.txt").write_text("\n".join(f"{word}: {WORDS[(i + 1) % 10]}" for i, word in enumerate(WORDS)))
    run("--dataset-dir", digits, *COOP, "--classnames", "names.txt", "--output-dir", "out", "OPTIM.MAX_EPOCH", "1")
    log = (tmp_path / "out" / "log.txt").read_text()
    assert "no better than guessing: class names and labels are probably misaligned" in log


def test_any_trainer_runs_and_pixel_trainers_see_the_same_zero_shot_accuracy(digits, run, tmp_path):
    found = set()
    for trainer in ("ZeroshotCLIP", "DAPT", "VPT", "LinearProbe", "AR"):
        code, _, err = run("--dataset-dir", digits, *COOP, "--trainer", trainer, "--output-dir", trainer,
                           "--config-file", f"configs/trainers/{trainer}/tiny.yaml",
                           "DATASET.NUM_SHOTS", "2", "OPTIM.MAX_EPOCH", "1")
        assert code == 0, err
        found |= {line for line in (tmp_path / trainer / "log.txt").read_text().splitlines() if "Zero-shot" in line}
    assert len(found) == 1


def test_a_list_without_header_words_is_refused_with_code_2(digits, run, tmp_path):
    (tmp_path / "l.csv").write_text("a,b\n1,2\n")
    code, _, err = run("--dataset-dir", "l.csv", *COOP)
    assert code == 2 and "its first line needs path" in err and not (tmp_path / "output").exists()
    assert run("--dataset-dir", "nowhere", *COOP)[0] == 2


def test_new_images_in_the_folder_and_other_names_are_another_result(digits, tmp_path):
    def described(*words):
        return inputs.describe(train.parser().parse_args([*COOP, "--dataset-dir", str(tmp_path / "set"), *words]))

    Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "set").mkdir()
    before = described()
    (tmp_path / "set" / "new.png").touch()
    assert inputs.differences(before, described()) == [f"{'/'.join((tmp_path / 'set').parts[-3:])} has changed"]
    (tmp_path / "names.txt").write_text("a\nb\n")
    renamed = described("--classnames", f"{tmp_path}/names.txt")
    assert any("names.txt" in change for change in inputs.differences(described(), renamed))


def test_the_first_look_changes_no_random_stream(digits, run, monkeypatch):
    states = []
    look = first_look.first_look

    def spied(trainer):
        states.append(torch.get_rng_state())
        look(trainer)
        states.append(torch.get_rng_state())

    monkeypatch.setattr(first_look, "first_look", spied)
    run("--dataset-dir", digits, *COOP, "--output-dir", "out", "OPTIM.MAX_EPOCH", "0")
    assert len(states) == 2 and torch.equal(*states)


@pytest.mark.parametrize(("trainer", "said"), [
    ("CoOp", "the zero-shot check of 4 images about 0:00:00, the test of 40 images about"),
    ("ZeroshotCLIP", " s: the test of 40 images about")])
def test_on_a_cpu_the_time_is_told_from_the_first_batch_and_zero_shot_is_not_found_twice(digits, run, monkeypatch,
                                                                                         tmp_path, trainer, said):
    monkeypatch.setattr(first_look, "_LONG_SECONDS", 0)
    code, _, err = run("--dataset-dir", digits, *COOP, "--trainer", trainer, "--config-file",
                       f"configs/trainers/{trainer}/tiny.yaml", "--output-dir", "out", "OPTIM.MAX_EPOCH", "0")
    log = (tmp_path / "out" / "log.txt").read_text()
    assert code == 0 and said in log, err
    assert ("Zero-shot accuracy on 20" in log) == (trainer == "CoOp") and log.count("=> result") == 1


def test_a_wait_is_announced_only_if_it_is_long():
    assert first_look.forecast(0.5, 184, 5000) == (
        "On this CPU an image takes 0.5 s: the zero-shot check of 184 images about 0:01:32, the test of 5,000 images "
        "about 0:41:40 (h:mm:ss, measured on the first batch)")
    assert first_look.forecast(0.001, 184, 5000) == ""


def test_no_folder_of_the_same_name_and_no_other_words_replace_a_result_or_are_refused(digits, run, tmp_path):
    zero_shot = ["--trainer", "ZeroshotCLIP", "--config-file", "configs/trainers/ZeroshotCLIP/tiny.yaml", "--seed", "1"]
    some = second_folder(digits, tmp_path / "B" / "my_digits", WORDS[:3], str)
    listed = tmp_path / "B" / "my_digits.csv"
    images = [path for path in some.rglob("*") if path.is_file()]
    listed.write_text("path,label\n" + "".join(f"{path},{path.parent.name}\n" for path in images))
    (tmp_path / "names.txt").write_text("\n".join(WORDS[::-1]))
    sets = ([digits], [some], [listed], [digits, "--template", "the number {}."], [digits, "--classnames", "names.txt"])
    for words in sets:
        assert run("--dataset-dir", *words, *zero_shot)[0] == 0
    found = {path.relative_to(tmp_path / "output"): path.read_text()
             for path in (tmp_path / "output").rglob("results.json")}
    assert len(found) == len(sets) and Path("my_digits/ZeroshotCLIP/tiny/seed1/results.json") in found
    assert {json.loads(text)["dataset"] == path.parts[0] for path, text in found.items()} == {True}
    assert run("--dataset-dir", f"{digits}/../my_digits", *zero_shot)[0] == 0              # the same, again
    assert run("--dataset-dir", digits, *zero_shot, "DATALOADER.TEST.BATCH_SIZE", "7")[0] == 0
    assert len(list((tmp_path / "output").rglob("results.json"))) == len(sets) + 1


def test_folders_whose_names_differ_behind_a_dot_are_kept_apart():
    assert [inputs.name_of(f"/x/{name}") for name in ("photos.v1", "photos.v2", "list.v1.csv")] == \
        ["photos.v1", "photos.v2", "list.v1"]


@pytest.fixture(scope="module")
def probe(digits, tmp_path_factory):
    """A run of LinearProbe, which learns a row of weights for each class."""
    folder = tmp_path_factory.mktemp("probe") / "run"
    assert train.cli(["--dataset-dir", str(digits), *PROBE, "--output-dir", str(folder), "DATASET.NUM_SHOTS", "4"]) == 0
    return folder


def second_folder(digits, place, chosen, spelled):
    """Links to images of some classes, in folders of other names."""
    for word in chosen:
        (place / spelled(word)).mkdir(parents=True)
        for image in (digits / word).iterdir():
            (place / spelled(word) / image.name).symlink_to(image)
    return place


def evaluate(run, *words):
    code, _, err = run(*words, "--output-dir", "eval")
    return code, err, json.loads(Path("eval/results.json").read_text()) if code == 0 else {}


def test_only_the_test_split_of_a_runs_own_folder_is_tested_and_all_images_of_another(digits, probe, run, tmp_path):
    code, _, own = evaluate(run, "--dataset-dir", digits, *PROBE, "--eval-only", "--model-dir", probe)
    assert code == 0 and own["num_test"] == 40 and own["metrics"]["accuracy"] > 50
    assert "so only its test split is tested" in (tmp_path / "eval" / "log.txt").read_text()
    other = second_folder(digits, tmp_path / "other" / "test", WORDS, str).parent
    code, _, all_of_them = evaluate(run, "--dataset-dir", other, *PROBE, "--eval-only", "--model-dir", probe)
    assert code == 0 and all_of_them["num_test"] == 120 and all_of_them["metrics"]["accuracy"] > 50


def test_a_second_folder_is_matched_by_class_names_whatever_its_order_and_whichever_it_lacks(
        digits, probe, run, tmp_path):
    words = [*PROBE, "--eval-only", "--model-dir", probe]
    same = second_folder(digits, tmp_path / "same", WORDS, str)
    _, _, expected = evaluate(run, "--dataset-dir", same, *words)
    turned = second_folder(digits, tmp_path / "turned", WORDS, lambda word: f"{9 - WORDS.index(word)} {word}")
    (tmp_path / "names.txt").write_text("\n".join(f"{9 - i} {word}: {word}" for i, word in enumerate(WORDS)))
    code, _, found = evaluate(run, "--dataset-dir", turned, "--classnames", "names.txt", *words)
    assert code == 0 and found["metrics"] == expected["metrics"]
    some = second_folder(digits, tmp_path / "some", WORDS[4:], str)
    code, _, found = evaluate(run, "--dataset-dir", some, *words)
    assert code == 0 and found["num_test"] == 72 and found["num_classes"] == 10 and found["metrics"]["accuracy"] > 50


def test_other_class_names_are_refused_where_something_was_learned_for_each(digits, probe, run, tmp_path, caplog):
    german = second_folder(digits, tmp_path / "german", WORDS, lambda word: f"die {word}")
    code, err, _ = evaluate(run, "--dataset-dir", german, *PROBE, "--eval-only", "--model-dir", probe)
    assert code == 2 and "learned something for each of its classes" in err and "die eight" in err
    code, err, _ = evaluate(run, "--dataset-dir", german, *PROBE, "--resume", probe)
    assert code == 2 and "learned 10 classes" in err
    shutil.copytree(probe, tmp_path / "foreign", ignore=shutil.ignore_patterns("classes.json"))
    assert evaluate(run, "--dataset-dir", german, *PROBE, "--eval-only", "--model-dir", tmp_path / "foreign")[0] == 0
    assert "does not say which classes it learned" in caplog.text
    run("--dataset-dir", digits, *COOP, "--output-dir", "coop", "DATASET.NUM_SHOTS", "1", "OPTIM.MAX_EPOCH", "1")
    assert evaluate(run, "--dataset-dir", german, *COOP, "--eval-only", "--model-dir", "coop")[0] == 0


@pytest.mark.parametrize("right, words", [
    (40, ""), (4, "no better than guessing"), (0, "worse than guessing"), (2, "too few images to tell")])
def test_the_first_look_says_what_its_images_can_tell(right, words, monkeypatch, caplog):
    n, classes = (2, 2) if right == 2 else (40, 8)
    items = [Datum(impath=f"{i}.png", label=i % classes) for i in range(n)]
    dataset = SimpleNamespace(template="a {}.", classnames=list("abcdefgh")[:classes], num_classes=classes, look=items,
                              look_split="val")
    trainer = PromptTrainer.__new__(PromptTrainer)
    trainer.dm = SimpleNamespace(dataset=dataset)
    trainer.device, trainer.cfg = torch.device("cpu"), SimpleNamespace(TEST=SimpleNamespace(NO_TEST=True))
    monkeypatch.setattr(first_look, "_batches", lambda trainer, sentences: iter([(right, n, 0.0)]))
    with caplog.at_level(logging.INFO):
        first_look.first_look(trainer)
    assert words in caplog.text if words else "guessing:" in caplog.text and "Look at" not in caplog.text
