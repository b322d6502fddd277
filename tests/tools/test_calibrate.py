"""Temperature scaling of a finished run, and the figure of its confidences."""
import csv
import json

import pytest
import torch

from dassl.engine import build_trainer
from dassl.metrics.calibration import best_temperature, ece
from dassl.utils import UserError
from tools.calibrate import calibrate, measured
from tools.evaluating.tested import logits_of
from tools.plotting import reliability
from tools.plotting.style import THEMES, context
from tools.runs.run import Run


@pytest.fixture
def run(toy_run):
    return toy_run("CLIPAdapter", "OPTIM.MAX_EPOCH", 4, "OPTIM.LR", 0.05)


def test_a_temperature_comes_from_validation_images_and_changes_no_answer(run, make_cfg):
    trainer, folder = build_trainer(make_cfg("CLIPAdapter")), run
    trainer.load_model(str(folder))
    record = calibrate(folder)
    assert record == json.loads((folder / "calibration.json").read_text())
    val, (logits, labels) = (logits_of(trainer, loader, split) for loader, split in (
        (trainer.val_loader, "val"), (trainer.test_loader, "test")))
    assert record["temperature"] == pytest.approx(best_temperature(*val), rel=1e-4)
    assert record["after"] == pytest.approx(measured(logits / record["temperature"], labels), rel=1e-3)
    assert record["before"]["accuracy"] == record["after"]["accuracy"]
    results = json.loads((folder / "results.json").read_text())["metrics"]
    assert {k: results[k] for k in record["before"]} == pytest.approx(record["before"], rel=1e-3)


def test_the_figure_shows_the_runs_own_answers(run):
    folder = run
    with (folder / "predictions.csv").open(newline="") as file:
        rows = [(float(row["confidence"]), row["correct"] == "1") for row in csv.DictReader(file)]
    confidence, correct = reliability.read(Run(folder))
    assert list(zip(confidence.tolist(), correct.tolist(), strict=True)) == rows
    with context(THEMES["light"]):
        figure = reliability.draw(Run(folder), THEMES["light"])
    words = " ".join(text.get_text() for text in figure.texts)
    assert f"ECE {100 * ece(confidence, torch.tensor([right for _, right in rows])):.2f} %" in words
    (folder / "predictions.csv").unlink()
    with pytest.raises(UserError, match="predictions.csv"):
        reliability.read(Run(folder))


def test_test_images_in_place_of_validation_images_are_refused(run, monkeypatch):
    monkeypatch.setattr("dassl.engine.trainer.SimpleTrainer.val_is_test", property(lambda trainer: True))
    with pytest.raises(UserError, match="its test images in their place"):
        calibrate(run)
