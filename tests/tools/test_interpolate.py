"""tools/interpolate.py: a run's towers at every share between its start and its end, or a paragraph."""
import csv
import json

import pytest
import torch

from dassl.engine import build_trainer
from dassl.utils import UserError
from tools import interpolate
from tools.evaluating import interpolating
from tools.plotting.interpolation import draw
from tools.plotting.style import THEMES, context
from tools.runs.run import Run


@pytest.fixture
def run_of(make_cfg, tmp_path):
    def make(trainer, *opts):
        cfg = make_cfg(trainer, *opts, "OPTIM.MAX_EPOCH", 3, "OPTIM.LR", 0.002, output=tmp_path / "run")
        made = build_trainer(cfg)
        made.train()
        (tmp_path / "run" / "config.yaml").write_text(cfg.dump())
        return made

    return make


def accuracy(trainer):
    return interpolating.counted(trainer, "Toy", "test")[0] / len(trainer.dm.dataset.test) * 100


def test_ends_are_zero_shot_clip_and_the_fine_tuned_towers_and_the_kept_share_the_runs_result(
        make_cfg, run_of, tmp_path, monkeypatch):
    whole = run_of("WiSEFT", "TRAINER.WISEFT.ALPHA", 1.0)
    end = accuracy(whole)
    mixed = run_of("WiSEFT", "TRAINER.WISEFT.ALPHA", 0.25)
    kept, run = accuracy(mixed), Run(tmp_path / "run")
    seen, counted = [], interpolating.counted
    monkeypatch.setattr(interpolating, "counted", lambda trainer, *rest: seen.append(
        interpolating.weights_of(trainer.model.prompt_learner)) or counted(trainer, *rest))
    found = interpolating.curve(run, shares=(1, 0.25, 0, 0.5))
    zero = accuracy(build_trainer(make_cfg("ZeroshotCLIP")))
    assert found["shares"] == [0, 0.25, 0.5, 1] and found["kept_share"] == 0.25 and found["images"] == {"Toy": 24}
    assert [found["accuracy"]["Toy"][i] for i in (0, 1, 3)] == pytest.approx([zero, kept, end])
    for name, value in interpolating.weights_of(whole.model.prompt_learner).items():
        torch.testing.assert_close(seen[3][name], value, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(seen[2][name], (seen[0][name] + value) / 2, rtol=1e-4, atol=1e-5)
    earlier = interpolating.curve(Run(tmp_path / "run", 3), shares=(0.25,))
    assert earlier["kept_share"] == 0.25 and earlier["accuracy"]["Toy"] == pytest.approx([kept])


def test_table_csv_json_and_figure_say_the_same(toy_run, capsys, monkeypatch):
    run = toy_run("FLYP")
    toy = interpolating.target_cfg
    monkeypatch.setattr(interpolating, "target_cfg", lambda run, name: toy(run, "digits") if name == "?" else run.cfg)
    assert interpolate.cli([str(run), "--targets", "shifted", "other", "--shares", "0", "1", "--format", "svg"]) == 0
    out, found = capsys.readouterr().out, json.loads((run / "interpolation.json").read_text())
    rows = list(csv.DictReader((run / "interpolation.csv").read_text().splitlines()))
    assert list(rows[0]) == ["share", "Toy", "shifted", "other", "mean of targets"] and len(rows) == 2
    assert [float(row["Toy"]) for row in rows] == found["accuracy"]["Toy"] == found["accuracy"]["other"]
    assert "chosen on test images" in out and (run / "plots" / "interpolation.svg").is_file()
    with context(THEMES["dark"]):
        figure = draw(found, Run(run), THEMES["dark"])
    lines = {line.get_gid(): line for ax in figure.axes for line in ax.lines}
    assert list(lines["shifted"].get_ydata()) == found["accuracy"]["shifted"]
    assert list(lines["curve"].get_xdata()) == found["accuracy"]["Toy"]


@pytest.mark.parametrize(("name", "words"), [("CoOp", "a TextPrompt"), ("TwoSFS", "a StagedHead")])
def test_what_has_no_value_before_training_is_refused(toy_run, capsys, name, words):
    run = toy_run(name, *(("TRAINER.TWOSFS.ITERATIONS", 0) if name == "TwoSFS" else ()))
    assert interpolate.cli([str(run)]) == 2
    assert words in capsys.readouterr().err and not (run / "interpolation.json").exists()


def test_bad_input_is_refused_before_anything_is_tested(toy_run, tmp_path, capsys):
    run = toy_run("WiSEFT")
    for words, said in ((["--shares", "1.5"], "got 1.5"), (["--targets", "digit"], "'digit'"),
                        (["--targets", "digits:smoke:5"], "smoke"), (["--targets", "digits"], "has others: zero"),
                        (["--targets", "imagenet"], "ImageNet")):
        assert interpolate.cli([str(run), *words]) == 2
        assert said in capsys.readouterr().err
    assert interpolate.cli([str(tmp_path / "nowhere")]) == 2
    assert not (run / "interpolation.json").exists()
    with pytest.raises(UserError, match="left the weights"):
        interpolating.towers_of(type("Zero", (), {"model": None})())
