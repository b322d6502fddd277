"""A run predicts from its folder alone (the matrix tests it for every trainer); what it cannot do is one paragraph."""
import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dassl.utils import UserError
from tools.predict import load


@pytest.fixture
def run_of(toy_run):
    """run_of("CoOp", *opts) -> its finished run, moved; its config names a folder of datasets that is not there."""
    def get(trainer, *opts):
        folder = toy_run(trainer, *opts)
        config, nowhere = folder / "config.yaml", folder.with_name("no_data")
        config.write_text(re.sub("^  ROOT: .*$", f"  ROOT: {nowhere}", config.read_text(), flags=re.M))
        return folder

    return get


def answers_of(folder):
    with open(folder / "predictions.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_class_specific_contexts_refuse_other_classes(run_of):
    folder = run_of("CoOp", "TRAINER.COOP.CSC", "True")
    with pytest.raises(UserError, match="so it serves its own classes and no others"):
        load(folder, classes=["a", "b", "c", "d"])


def test_paths_images_and_arrays_of_all_kinds_give_the_same_answer(run_of):
    classifier = load(run_of("CoOp"))
    path = answers_of(run_of("CoOp"))[0]["path"]
    image = Image.open(path).convert("RGB")
    pixels = np.asarray(image)
    with_alpha = np.dstack([pixels, np.full(pixels.shape[:2], 7, np.uint8)])
    kinds = [path, Path(path), image, pixels, pixels / 255.0, (pixels / 255.0).astype(np.float32), with_alpha]
    found = [classifier.predict(kind)[0] for kind in kinds] + classifier.predict(np.stack([pixels, pixels]))
    assert {answer.label for answer in found} == {found[0].label} and len(found) == 9
    assert all(dict(answer.top) == pytest.approx(dict(found[0].top), abs=1e-6) for answer in found)
    assert (found[0].image, found[3].image) == (path, "image 0")


@pytest.mark.parametrize("bad", [np.zeros((4, 4, 2), np.uint8), np.full((4, 4), 7.0), np.zeros((0, 4), np.uint8),
                                 np.array([[np.nan]]), np.zeros((4, 4), np.int64), 3, torch.zeros(3, 4, 4)])
def test_what_is_no_image_is_named(bad, run_of):
    with pytest.raises(UserError, match="image 1 is not a readable image"):
        load(run_of("CoOp")).predict([np.zeros((4, 4), np.uint8), bad])


@pytest.mark.parametrize("trainer", ["CoCoOp", "TPT"])
def test_answers_do_not_depend_on_the_batch(trainer, run_of):
    folder = run_of(trainer)
    paths = [row["path"] for row in answers_of(folder)][::4]
    whole, *others = (load(folder).predict(paths, topk=4, batch_size=size) for size in (6, 1, 4))
    for pieces in others:
        for a, b in zip(whole, pieces, strict=True):
            assert a.image == b.image and dict(a.top) == pytest.approx(dict(b.top), abs=1e-5)


def test_other_weights_than_the_runs_are_an_error(run_of, tmp_path, tiny_clip_weights):
    other = tmp_path / "other.pt"
    torch.save({**tiny_clip_weights, "logit_scale": tiny_clip_weights["logit_scale"] + 0.1}, other)
    with pytest.raises(UserError, match="sha256.*--backbone FILE"):
        load(run_of("CoOp"), backbone=str(other))


@pytest.mark.parametrize("record", ["classes.json", "results.json"])
def test_a_recorded_hash_that_differs_is_an_error_wherever_it_stands(record, run_of):
    folder = run_of("CoOp")
    content = json.loads((folder / record).read_text())
    content["backbone"]["sha256"] = "0" * 64
    (folder / record).write_text(json.dumps(content))
    with pytest.raises(UserError, match="sha256 000000000000"):
        load(folder)


def test_weights_that_moved_are_asked_for_and_taken(run_of, tmp_path, tiny_clip_file):
    folder = run_of("CoOp")
    text = (folder / "config.yaml").read_text().replace(str(tiny_clip_file), "/gone/clip.pt")
    (folder / "config.yaml").write_text(text)
    with pytest.raises(UserError, match="/gone/clip.pt.*--backbone FILE"):
        load(folder)
    moved = shutil.copy(tiny_clip_file, tmp_path / "moved.pt")
    path = answers_of(folder)[0]["path"]
    assert load(folder, backbone=str(moved)).predict(path)[0].label == answers_of(folder)[0]["predicted"]


@pytest.mark.parametrize(("graphs", "told"), [("false", False), ("true", True)])
def test_a_run_with_settings_that_are_gone_still_predicts(graphs, told, run_of, caplog):
    folder = run_of("CoOp")
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("\nTRAIN:\n", f"\nTRAIN:\n  CUDA_GRAPHS: {graphs}\n"))
    assert f"CUDA_GRAPHS: {graphs}" in config.read_text()
    row = answers_of(folder)[0]
    assert load(folder).predict(row["path"])[0].label == row["predicted"]
    assert ("does not know: TRAIN.CUDA_GRAPHS" in caplog.text) is told


def test_a_runs_own_plugin_is_code_and_waits_to_be_named(run_of, tmp_path):
    folder, plugin = run_of("CoOp"), tmp_path / "mine.py"
    plugin.write_text("raise SystemExit('this ran')")
    (folder / "config.yaml").write_text((folder / "config.yaml").read_text().replace("NAME: CoOp", "NAME: MineOwn"))
    (folder / "inputs.json").write_text(json.dumps({"flags": {"plugin": [str(plugin)]}}))
    with pytest.raises(UserError, match="not run unasked.*--plugin .*mine.py"):
        load(folder)
    with pytest.raises(SystemExit, match="this ran"):
        load(folder, plugins=[str(plugin)])


def test_an_older_run_without_class_names_takes_them_from_the_flag(run_of, make_cfg):
    folder = run_of("CoOp")
    make_cfg("CoOp")                                                    # the toy dataset is known, also to a kept run
    own = json.loads((folder / "classes.json").read_text())["classnames"]
    (folder / "classes.json").unlink()
    row = answers_of(folder)[3]
    assert load(folder, classes=own).predict(row["path"])[0].label == row["predicted"]
    assert load(folder).classnames == own                                # its dataset still says them
    text = (folder / "config.yaml").read_text().replace("NAME: Toy", "NAME: OxfordPets")
    (folder / "config.yaml").write_text(text)
    with pytest.raises(UserError, match="Give them with --classes"):
        load(folder)


def test_an_older_zero_shot_run_takes_its_datasets_sentence(tmp_path):
    from dassl.utils import set_random_seed
    from tools import train
    from tools.runs.recipe import ROOT

    args = train.parser().parse_args(["--trainer", "ZeroshotCLIP", "--seed", "1", "--output-dir", str(tmp_path / "run"),
                                      "--root", str(tmp_path), "--dataset-config-file", "configs/datasets/digits.yaml",
                                      "--config-file", str(ROOT / "configs/trainers/ZeroshotCLIP/tiny.yaml"),
                                      "DATASET.NUM_SHOTS", "4", "TEST.SPLIT", "val"])
    set_random_seed(1)
    train.main(args)
    rows = answers_of(tmp_path / "run")
    (tmp_path / "run" / "classes.json").unlink()
    classifier = load(tmp_path / "run")
    assert classifier.facts["template"] == "a photo of the digit {}."
    assert [a.label for a in classifier.predict([row["path"] for row in rows])] == [row["predicted"] for row in rows]


def test_a_datasets_own_names_may_stand_twice(run_of):
    """ImageNet has two cranes: one name for two labels is told apart by what was learned, not by the name."""
    folder = run_of("LinearProbe")
    classes = json.loads((folder / "classes.json").read_text())
    (folder / "classes.json").write_text(json.dumps({**classes, "classnames": ["crane", "crane", "dog", "cat"]}))
    answer = load(folder).predict(answers_of(folder)[0]["path"])[0]
    assert sorted(name for name, _ in answer.top) == ["cat", "crane", "crane", "dog"]


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.load:FutureWarning")
def test_a_public_trainers_run_predicts_once_its_file_is_named(make_cfg, tmp_path, monkeypatch):
    """One written for Dassl and CoOp, with a CLIP of its own of which no sha256 was recorded."""
    from dassl.engine import build_trainer
    from dassl.engine.plugins import load_plugin

    monkeypatch.setenv("CLIP_CACHE", str(tmp_path / "cache"))
    plugin = str(Path(__file__).parents[1] / "coop_style_trainer.py")
    cfg = make_cfg("CoOp", "TRAINER.COOP.N_CTX", 4, output=tmp_path / "first")
    load_plugin(plugin)
    cfg.defrost()
    cfg.TRAINER.NAME, cfg.TRAINER.COOP.PREC = "CoOpStyle", "fp32"
    cfg.freeze()
    build_trainer(cfg).train()
    (tmp_path / "first" / "config.yaml").write_text(cfg.dump())
    folder = (tmp_path / "first").rename(tmp_path / "moved")
    rows = answers_of(folder)
    found = load(folder, plugins=[plugin], device="cpu").predict([row["path"] for row in rows])
    assert [answer.label for answer in found] == [row["predicted"] for row in rows]
    with pytest.raises(UserError, match="so it serves its own classes and no others"):
        load(folder, plugins=[plugin], classes=["a", "b", "c", "d"])
