"""A run folder is read without this project: by any reader of JSON, CSV, YAML and text, by TensorBoard and torch."""
import csv
import json

import pytest
import torch
import yaml

from tools import train
from tools.runs.recipe import ROOT


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One epoch of CoOp on the digits, by the command line."""
    folder = tmp_path_factory.mktemp("run")
    configs = ROOT / "configs"
    assert train.cli(["--root", str(folder), "--trainer", "CoOp", "--seed", "1", "--output-dir", str(folder / "seed1"),
                      "--dataset-config-file", str(configs / "datasets/digits.yaml"),
                      "--config-file", str(configs / "trainers/CoOp/tiny.yaml"),
                      "DATASET.NUM_SHOTS", "1", "OPTIM.MAX_EPOCH", "2"]) == 0
    return folder / "seed1"


def test_results_predictions_and_log_say_the_same(run):
    record = json.loads((run / "results.json").read_text(encoding="utf-8"))
    with open(run / "predictions.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    accuracy = 100 * sum(row["true"] == row["predicted"] for row in rows) / len(rows)
    assert len(rows) == record["num_test"] and accuracy == pytest.approx(record["metrics"]["accuracy"])
    assert f"* accuracy: {accuracy:.1f}%" in (run / "log.txt").read_text(encoding="utf-8")


def test_settings_and_classes_are_plain_yaml_and_json(run):
    settings = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    classes = json.loads((run / "classes.json").read_text(encoding="utf-8"))
    assert settings["TRAINER"]["NAME"] == classes["trainer"] == "CoOp" and settings["DATASET"]["NUM_SHOTS"] == 1
    assert len(classes["classnames"]) == 10 and len(classes["backbone"]["sha256"]) == 64


def test_curves_are_tensorboards_own(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    assert {"train/loss", "train/acc", "train/lr", "test/accuracy"} <= set(events.Tags()["scalars"])
    assert len(events.Scalars("train/loss")) == 2


def test_prompts_are_tensors_under_the_authors_names(run):
    saved = torch.load(run / "prompt_learner" / "model.pth.tar-2", weights_only=True)
    assert saved["epoch"] == 2 and list(saved["state_dict"]) == ["ctx"]
