"""TRAIN.TRACKERS: values for wandb and mlflow; modules of these names replace the packages."""
import sys
from types import ModuleType

import pytest

from dassl.engine import build_trainer
from dassl.engine.hooks import trackers
from dassl.utils import UserError


@pytest.fixture
def packages(monkeypatch):
    """A fake wandb and a fake mlflow; what they receive is in `.seen`, and they fail while `.broken`."""
    seen = []
    wandb, mlflow = ModuleType("wandb"), ModuleType("mlflow")

    class Run:
        def log(self, values, step):
            if wandb.broken:
                raise OSError("no network")
            seen.append(("wandb", step, values))

        def finish(self):
            seen.append(("wandb", "end", {}))

    def init(name, dir, config):
        seen.append(("wandb", "begin", {"name": name, "dir": dir, **config}))
        return Run()

    wandb.init, wandb.broken = init, False
    mlflow.start_run = lambda run_name: seen.append(("mlflow", "begin", {"name": run_name}))
    mlflow.log_params = lambda params: seen.append(("mlflow", "settings", params))
    mlflow.log_metrics = lambda values, step: seen.append(("mlflow", step, values))
    mlflow.end_run = lambda: seen.append(("mlflow", "end", {}))
    for module in (wandb, mlflow):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(trackers, "find_spec", lambda name: sys.modules.get(name))
    wandb.seen = seen
    return wandb


def of(seen, name):
    return [(step, values) for who, step, values in seen if who == name]


def test_both_get_settings_losses_rates_and_results_and_are_closed(make_cfg, packages):
    cfg = make_cfg("CoOp", "TRAIN.TRACKERS", "wandb,mlflow")
    build_trainer(cfg).train()
    first, *middle, last = of(packages.seen, "wandb")
    assert first[1]["name"] == f"CoOp {cfg.DATASET.NAME} seed {cfg.SEED}" and first[1]["OPTIM.LR"] == cfg.OPTIM.LR
    assert first[1]["dir"] == cfg.OUTPUT_DIR and last == ("end", {})
    assert {"train/loss", "train/acc", "train/lr"} <= set(middle[0][1])
    assert {"test/accuracy", "test/nll", "test/ece"} <= set(middle[-1][1])
    steps = [step for step, _ in middle]
    assert steps == sorted(steps)
    begin, *rest = of(packages.seen, "mlflow")
    settings = {key: value for step, params in rest if step == "settings" for key, value in params.items()}
    assert settings["OPTIM.LR"] == str(cfg.OPTIM.LR) and all(len(params) <= 100 for _, params in rest)
    assert [(s, v) for s, v in rest if s != "settings"] == [*middle, last]


def test_a_test_alone_is_sent_too(make_cfg, packages):
    build_trainer(make_cfg("ZeroshotCLIP", "TRAIN.TRACKERS", "wandb")).test()
    assert [step for step, _ in of(packages.seen, "wandb")] == ["begin", 0, "end"]


def test_a_tracker_that_fails_ends_and_the_run_does_not(make_cfg, packages, caplog, tmp_path):
    packages.broken = True
    build_trainer(make_cfg("CoOp", "TRAIN.TRACKERS", "wandb, tensorboard")).train()
    assert (tmp_path / "run" / "results.json").exists()
    assert len([line for line in caplog.messages if "No more values for wandb (OSError: no network)" in line]) == 1


@pytest.mark.parametrize("names", ["wandbb", "wandb"])
def test_unknown_and_missing_trackers_are_refused_before_training(make_cfg, names, monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="'wandbb'.*Did you mean wandb" if names == "wandbb" else "pip install wandb"):
        build_trainer(make_cfg("CoOp", "TRAIN.TRACKERS", names))
