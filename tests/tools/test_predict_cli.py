"""tools/predict.py at the command line: what is printed where, and the exit code."""
import csv
import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dassl.utils import UserError
from tools import predict
from tools.prediction.images import find

ZERO_SHOT = ["--backbone", "tiny", "--classes", "circle, square, =star"]
KNOWN = ["--backbone", "tiny", "--classes", "circle, square"]


@pytest.fixture
def photos(tmp_path):
    """Four images, one of them in a folder below, and files that are none."""
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    for i, name in enumerate(["b.png", "a[1].jpg", "below/c.PNG", "ä.webp", ".hidden/d.png"]):
        Image.fromarray(np.full((40, 30, 3), 60 * i, np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


def run(argv, capsys):
    code = predict.cli([str(word) for word in argv])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return code, out, err


def test_files_folders_and_patterns_name_each_image_once_in_order(photos):
    paths, nothing = find([str(photos / "b.png"), str(photos), str(photos / "*.png"), str(photos / "a[1].jpg")])
    assert [Path(p).relative_to(photos).as_posix() for p in paths] == ["b.png", "a[1].jpg", "ä.webp", "below/c.PNG"]
    assert not nothing
    paths, nothing = find([str(photos / "**" / "*.PNG"), str(photos / "gone.png"), str(photos / "*.gif")])
    assert sorted(Path(p).name for p in paths) == ["c.PNG"] and len(nothing) == 2


def test_the_table_names_class_and_confidence(photos, capsys):
    code, out, err = run([*ZERO_SHOT, photos], capsys)
    head, _, *rows = out.splitlines()
    assert code == 0 and head.split() == ["image", "class", "confidence", "runner-up"] and len(rows) == 4
    assert all(" %" in row for row in rows) and "bel" in rows[3]


def test_json_holds_every_image_with_all_its_classes(photos, capsys):
    code, out, _ = run([*ZERO_SHOT, "--json", photos], capsys)
    rows = json.loads(out)
    assert code == 0 and len(rows) == 4
    for row in rows:
        assert {answer["class"] for answer in row["top"]} == {"circle", "square", "=star"}
        assert row["class"] == row["top"][0]["class"] and 1 / 3 <= row["confidence"] <= 1
        assert sum(answer["confidence"] for answer in row["top"]) == pytest.approx(1, abs=1e-5)


def test_csv_has_a_row_per_image_and_no_formula(photos, capsys):
    code, out, _ = run([*ZERO_SHOT, "--csv", "--topk", 2, photos], capsys)
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0 and len(rows) == 4
    assert list(rows[0]) == ["path", "predicted", "confidence", "predicted_2", "confidence_2", "error"]
    assert not any(cell.startswith("=") for row in rows for cell in row.values())


def test_images_that_cannot_be_read_are_named_and_do_not_stop_the_others(photos, capsys):
    (photos / "cut.png").write_bytes((photos / "b.png").read_bytes()[:40])
    (photos / "empty.jpg").touch()
    code, out, err = run([*ZERO_SHOT, "--json", photos, photos / "gone.png"], capsys)
    rows = {Path(row["image"]).name: row for row in json.loads(out)}
    assert code == 1 and len(rows) == 6
    assert {name for name, row in rows.items() if "error" in row} == {"cut.png", "empty.jpg"}
    assert all(name in err for name in ("cut.png", "empty.jpg", "gone.png"))
    assert "images predicted: 4; unreadable, listed above: 3" in err


@pytest.mark.parametrize(("argv", "told"), [
    ([], "There is no image"), (["--backbone", "tiny", "--classes", "a", "IMAGE"], "two or more names"),
    (["--backbone", "tiny", "--classes", "a, b, a", "IMAGE"], "got 'a' twice"),
    (["--backbone", "tiny", "--classes", "a,, b", "IMAGE"], "not empty, got 'a', '', 'b'"),
    (["--backbone", "tiny", "--classes", "gone.txt", "IMAGE"], "gone.txt cannot be read"),
    (["--backbone", "tiny", "IMAGE"], "--backbone tiny --classes"),
    ([*KNOWN, "--topk", "0", "IMAGE"], "at least 1, got 0"),
    (["--backbone", "tinny", "--classes", "a,b", "IMAGE"], "did you mean 'tiny'"),
    ([*KNOWN, "--template", "no place", "IMAGE"], "one {}"), (["--run", "/nowhere", "IMAGE"], "does not exist"),
    ([*KNOWN, "--device", "cuda", "IMAGE"], "doctor.py")])
def test_what_the_user_can_mend_is_one_paragraph_and_code_2(argv, told, photos, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    code, out, err = run([str(photos / "b.png") if word == "IMAGE" else word for word in argv], capsys)
    assert code == 2 and not out and told in err and len(err.strip().splitlines()) == 1


def test_names_that_are_no_text_and_files_that_are_none_are_survived(photos, capsys):
    odd = os.fsdecode(bytes(photos) + b"/\xe9.png")
    shutil.copy(photos / "b.png", odd)
    (photos / "link.png").symlink_to("/gone/away.png")
    for form in ("--csv", "--json"):
        code, out, err = run([*KNOWN, form, photos, photos / "link.png"], capsys)
        assert code == 1 and "link.png: there is no such file" in err and "link.png: no file" in err
        assert "\\udce9.png" in out
    assert any(row["image"] == odd for row in json.loads(out))


def test_thumbnails_that_a_disk_station_keeps_are_no_images_and_a_comma_may_end_the_names(photos, capsys):
    (photos / "@eaDir" / "b.png").mkdir(parents=True)
    shutil.copy(photos / "b.png", photos / "@eaDir" / "b.png" / "SYNOPHOTO_THUMB_S.png")
    code, out, _ = run(["--backbone", "tiny", "--classes", "circle, square,", "--json", photos], capsys)
    assert code == 0 and len(json.loads(out)) == 4 and len(json.loads(out)[0]["top"]) == 2


def test_what_is_no_image_and_scores_that_are_no_numbers_are_told():
    classifier = predict.classifier_of(predict.parser().parse_args(KNOWN))
    with pytest.raises(UserError, match="Images must be paths.*got NoneType"):
        classifier.predict(None)
    classifier._infer = lambda images: torch.full((len(images), 2), float("nan"))
    with pytest.raises(UserError, match="logits are NaN"):
        classifier.predict(np.zeros((8, 8, 3), np.uint8))


def test_class_names_come_from_a_file_too(photos, capsys, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("\ufeffcircle\n\n a square, filled \nstar\n", encoding="utf-8")
    _, out, _ = run(["--backbone", "tiny", "--classes", names, "--json", photos / "b.png"], capsys)
    assert {top["class"] for top in json.loads(out)[0]["top"]} == {"circle", "a square, filled", "star"}


def test_a_file_of_class_names_in_another_encoding_is_told(photos, capsys, tmp_path):
    (tmp_path / "names.txt").write_bytes(b"caf\xe9\nchat\n")
    code, _, err = run(["--backbone", "tiny", "--classes", tmp_path / "names.txt", photos / "b.png"], capsys)
    assert code == 2 and "names.txt is not a readable text" in err


def test_a_run_that_only_tested_predicts_with_the_prompts_it_tested(make_cfg, tmp_path, capsys):
    """As tools/sweep.py lays them out: <results>/<dataset>/<trainer>/<variant>/<seed>, then moved as a whole."""
    from dassl.engine import build_trainer
    from tools import train
    from tools.predict import load
    from tools.runs import inputs

    first, second = (tmp_path / "results" / name / "CoOp" / "tiny" / "seed1" for name in ("toy", "toy_other"))
    cfg = make_cfg("CoOp", output=first)
    build_trainer(cfg).train()
    (first / "config.yaml").write_text(cfg.dump())
    cfg = make_cfg("CoOp", output=second, dataset="ToyOther")
    tester = build_trainer(cfg)
    tester.load_model(str(first))
    tester.test()
    (second / "config.yaml").write_text(cfg.dump())
    inputs.write(second, train.parser().parse_args(["--eval-only", "--model-dir", str(first)]))
    (tmp_path / "results").rename(tmp_path / "elsewhere")
    with open(tmp_path / "elsewhere/toy_other/CoOp/tiny/seed1/predictions.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = load(tmp_path / "elsewhere/toy_other/CoOp/tiny/seed1").predict([row["path"] for row in rows])
    assert [answer.label for answer in found] == [row["predicted"] for row in rows]
