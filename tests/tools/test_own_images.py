"""tools/train.py on images of one's own: the first look, any trainer without Python, a run folder of its own name."""
import json

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.digits import WORDS
from datasets.embedded import digit_images
from tools import inputs, train
from tools.running import first_look

COOP = ["--trainer", "CoOp", "--config-file", "configs/trainers/CoOp/tiny.yaml", "--seed", "1",
        "--template", "a photo of the digit {}."]


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
    folder = tmp_path / "output" / "my_digits" / "CoOp" / "tiny_4shots" / "seed1"
    assert code == 0 and json.loads((folder / "results.json").read_text())["finished"]
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


@pytest.mark.parametrize("accuracy, classes, n, above", [
    (0.10, 10, 200, False), (0.14, 10, 200, False), (0.15, 10, 200, True), (0.6, 2, 10, False), (0.9, 2, 10, True)])
def test_chance_is_within_two_standard_deviations_of_guessing(accuracy, classes, n, above):
    assert first_look.above_chance(accuracy, 1 / classes, n) == above
