"""The loop: hooks in Dassl's order, result lines, results.json, choices of the final model, losses that break."""

import json
import logging
import re
import subprocess
import sys
import warnings

import pytest
import torch
from torch import nn

from dassl.engine import TRAINER_REGISTRY, TrainerBase, TrainerX, build_trainer
from dassl.utils import UserError, setup_logger

HOOKS = ("before_train", "before_epoch", "run_epoch", "forward_backward", "after_epoch", "after_train", "test")


def spy(trainer, names=HOOKS):
    """Record the hooks as they are called."""
    calls = []

    def watch(name):
        original = getattr(trainer, name)

        def called(*args, **kwargs):
            calls.append(name)
            return original(*args, **kwargs)

        setattr(trainer, name, called)

    for name in names:
        watch(name)
    return calls


def test_hooks_are_called_in_dassls_order(engine_cfg):
    trainer = build_trainer(engine_cfg("OPTIM.MAX_EPOCH", 2))
    calls = spy(trainer)
    trainer.train()
    epoch = ["before_epoch", "run_epoch", *["forward_backward"] * 4, "after_epoch"]
    assert calls == ["before_train", *epoch, *epoch, "after_train", "test"]
    assert (trainer.epoch, trainer.batch_idx, trainer.num_batches, trainer.max_epoch) == (1, 3, 4, 2)


def test_construction_checks_then_loads_data_then_builds_the_model(engine_cfg, monkeypatch):
    calls = []
    for name in ("check_cfg", "build_data_loader", "build_model"):
        original = getattr(TrainerX, name)
        monkeypatch.setattr(TrainerX, name, lambda self, *a, n=name, f=original: (calls.append(n), f(self, *a))[1])
    trainer = build_trainer(engine_cfg())
    assert calls == ["check_cfg", "build_data_loader", "build_model"]
    assert trainer.num_classes == 3 and trainer.lab2cname[0] == "red" and trainer.dm.dataset.classnames[2] == "blue"
    assert trainer.get_model_names() == ["model"] and trainer.get_model_names("model") == ["model"]


def test_training_learns_and_the_log_has_dassls_lines(engine_cfg, tmp_path):
    with setup_logger(str(tmp_path / "run")):
        trainer = build_trainer(engine_cfg("OPTIM.MAX_EPOCH", 8, "OPTIM.NAME", "adam", "OPTIM.LR", 0.003))
        trainer.train()
    log = (tmp_path / "run" / "log.txt").read_text()
    assert re.search(
        r"^epoch \[1/8\] batch \[2/4\] time \d+\.\d{3} \(\d+\.\d{3}\) data \d+\.\d{3} \(\d+\.\d{3}\) loss \d+\.\d{4} "
        r"\(\d+\.\d{4}\) acc \d+\.\d{4} \(\d+\.\d{4}\) lr 1\.0000e-05 eta \d:\d\d:\d\d$",
        log,
        re.M,
    )
    for line in (
        r"Deploy the last-epoch model",
        r"Evaluate on the \*test\* set",
        r"=> result",
        r"\* total: 12",
        r"\* correct: \d+",
        r"\* accuracy: \d+\.\d%",
        r"\* error: \d+\.\d%",
        r"\* macro_f1: \d+\.\d%",
        r"Elapsed: 0:00:\d\d",
        r"Finish training",
    ):
        assert re.search(f"^{line}$", log, re.M), line
    assert float(re.search(r"\* accuracy: (.*)%", log)[1]) > 60


def test_results_json_says_what_the_run_was(engine_cfg, tmp_path):
    trainer = build_trainer(engine_cfg("DATASET.NUM_SHOTS", 4))
    trainer.train()
    record = json.loads((tmp_path / "run" / "results.json").read_text())
    expected = dict(
        finished=True,
        mode="train",
        trainer="EngineTrainer",
        dataset="EngineColours",
        shots=4,
        seed=1,
        classes="all",
        split="test",
        num_test=12,
        epochs=4,
        device="cpu",
        learned_parameters=3 * 12 * 12 * 16 + 16 + 16 * 3 + 3,
    )
    assert {k: record[k] for k in expected} == expected
    assert set(record["metrics"]) == {"accuracy", "error_rate", "macro_f1"}
    assert record["metrics"]["accuracy"] == trainer.evaluator.evaluate()["accuracy"]
    assert set(record["seconds"]) == {"train", "test", "total"} and record["versions"]["torch"]
    for key in ("split_hash", "class_hash", "config_hash"):
        assert re.fullmatch("[0-9a-f]{64}", record[key])
    assert {"peak_memory_mb", "model_selection", "transforms", "commit", "command", "date"} <= set(record)


def test_hashes_follow_images_and_settings_but_not_folders(engine_cfg, own_colours, tmp_path):
    def record(*opts, **where):
        build_trainer(engine_cfg("DATASET.NUM_SHOTS", 2, "OPTIM.MAX_EPOCH", 1, *opts, **where)).test()
        return json.loads((tmp_path / where["output"] / "results.json").read_text())

    one, moved = record(output="a"), record(output="b", root=own_colours)
    seed, rate = record("SEED", 2, output="c"), record("OPTIM.LR", 0.5, output="d")
    assert one["mode"] == "eval-only" and one["epochs"] == 0
    assert one["split_hash"] == moved["split_hash"] != seed["split_hash"]
    assert one["config_hash"] == moved["config_hash"] != rate["config_hash"]
    assert one["class_hash"] == seed["class_hash"]


def test_a_run_that_is_not_finished_has_no_results(engine_cfg, tmp_path):
    trainer = build_trainer(engine_cfg("TEST.FINAL_MODEL", "best_val"))
    trainer.after_train = lambda: None  # evaluated on val in each epoch, then killed
    trainer.train()
    trainer.close_loaders()
    assert not (tmp_path / "run" / "results.json").exists()


def test_the_best_epoch_on_val_is_deployed_when_asked_for(engine_cfg, tmp_path, caplog):
    trainer = build_trainer(engine_cfg("TEST.FINAL_MODEL", "best_val", "TRAIN.CHECKPOINT_FREQ", 1))
    scores, evaluate = iter([50.0, 80.0, 20.0, 80.0]), trainer.test
    trainer.test = lambda split=None: next(scores) if split == "val" else evaluate(split)
    with caplog.at_level(logging.INFO):
        trainer.train()
    assert "Deploy the model with the best val performance" in caplog.text
    second = torch.load(tmp_path / "run" / "model" / "model.pth.tar-2", weights_only=True)["state_dict"]
    assert all(torch.equal(v, second[k]) for k, v in trainer.model.state_dict().items())
    assert "validation" in json.loads((tmp_path / "run" / "results.json").read_text())["model_selection"]


def test_no_epoch_is_chosen_on_the_test_split(engine_cfg):
    with pytest.raises(UserError, match="best_val.*EngineNoVal"):
        build_trainer(engine_cfg("TEST.FINAL_MODEL", "best_val", "DATASET.NAME", "EngineNoVal")).train()


@pytest.mark.parametrize(
    "opts, message",
    [
        (("TEST.FINAL_MODEL", "best-val"), "best_val"),
        (("TEST.SPLIT", "tset"), "test"),
        (("TRAINER.NAME", "EngineTraner"), "EngineTrainer"),
    ],
)
def test_unknown_choices_are_refused_with_the_known_ones(engine_cfg, opts, message):
    with pytest.raises(UserError, match=message):
        build_trainer(engine_cfg(*opts))


def test_no_test_trains_and_stops(engine_cfg, tmp_path):
    trainer = build_trainer(engine_cfg("TEST.NO_TEST", True))
    calls = spy(trainer)
    trainer.train()
    assert "test" not in calls and (tmp_path / "run" / "model" / "model.pth.tar-4").exists()


def test_no_epochs_go_straight_to_the_test(engine_cfg, tmp_path):
    trainer = build_trainer(engine_cfg())
    trainer.max_epoch = 0
    trainer.train()
    assert json.loads((tmp_path / "run" / "results.json").read_text())["finished"]


def test_the_first_item_of_a_tuple_is_what_is_evaluated(engine_cfg):
    plain = build_trainer(engine_cfg())
    score = plain.test()
    plain.model_inference = lambda images, f=plain.model: (f(images), images, None)
    assert plain.test() == score


@pytest.mark.parametrize("count, batches", [("train_x", 4), ("train_u", 2), ("smaller_one", 2)])
def test_pairs_of_batches_count_as_the_config_says(engine_cfg, count, batches):
    trainer = build_trainer(
        engine_cfg(
            "TRAINER.NAME",
            "EngineTrainerXU",
            "DATASET.NAME",
            "EngineColoursTwice",
            "TRAIN.COUNT_ITER",
            count,
            "OPTIM.MAX_EPOCH",
            1,
        )
    )
    calls = spy(trainer)
    trainer.train()
    assert calls.count("forward_backward") == batches == trainer.num_batches


def test_pairs_of_batches_need_a_known_way_to_count(engine_cfg):
    trainer = build_trainer(
        engine_cfg("TRAINER.NAME", "EngineTrainerXU", "DATASET.NAME", "EngineColoursTwice", "TRAIN.COUNT_ITER", "train")
    )
    with pytest.raises(UserError, match="smaller_one"):
        trainer.train()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_broken_loss_names_its_term_epoch_batch_and_images(engine_cfg, value):
    trainer = build_trainer(engine_cfg())
    trainer.model.classifier.bias.data[0] = value
    with pytest.raises(UserError, match=r"(?s)loss.*epoch 1, batch 1 of 4.*train_x_\d_\d\.png.*OPTIM\.LR") as caught:
        trainer.train()
    assert isinstance(caught.value, FloatingPointError)  # what Dassl raises
    terms = {"ce": torch.tensor(1.0), "intra": torch.tensor(value)}
    with pytest.raises(UserError, match=r"(?s)term intra .*images a\.png"):
        trainer.check_finite(terms, {"impath": ["a.png"]})
    trainer.check_finite({"ce": torch.tensor(1.0)})


def test_registered_models_switch_modes_and_step_their_schedules():
    trainer = TrainerBase()
    trainer.epoch = trainer.batch_idx = trainer.num_batches = 0
    models = {name: nn.Linear(1, 1) for name in "ab"}
    for name, model in models.items():
        optim = torch.optim.SGD(model.parameters(), lr=1.0)
        trainer.register_model(name, model, optim, torch.optim.lr_scheduler.StepLR(optim, 1, 0.5))
    trainer.register_model("frozen", nn.Dropout())
    trainer.set_model_mode("eval", "a")
    assert not models["a"].training and models["b"].training
    before = models["b"].weight.detach().clone()
    trainer.model_backward_and_update(sum(m(torch.ones(1)).sum() for m in models.values()), names=["a"])
    assert torch.equal(models["b"].weight, before) and models["b"].weight.grad is not None
    trainer.update_lr("a")
    assert [trainer._optims[n].param_groups[0]["lr"] for n in "ab"] == [0.5, 1.0]
    with pytest.raises(ValueError, match="registered already"):
        trainer.register_model("a", nn.Linear(1, 1))
    with pytest.raises(ValueError, match="No model named c"):
        trainer.set_model_mode("eval", "c")
    with pytest.raises(UserError, match="'evl'"):
        trainer.set_model_mode("evl")


def test_tensorboard_gets_losses_rates_and_results(engine_cfg, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    build_trainer(engine_cfg()).train()
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert {"train/loss", "train/acc", "train/lr", "test/accuracy"} <= set(events.Tags()["scalars"])
    assert [round(e.value, 5) for e in events.Scalars("train/lr")][:4] == [1e-5, 1e-5, 1e-5, 0.05]


@pytest.mark.parametrize("epochs", [1, 4, 40])
def test_a_run_says_at_most_ten_lines_where_there_is_no_terminal(engine_cfg, capfd, epochs):
    build_trainer(engine_cfg("OPTIM.MAX_EPOCH", epochs)).train()
    out, err = capfd.readouterr()
    assert 1 <= len(err.splitlines()) <= 10 and "epoch" in err
    assert [line.split(":")[0] for line in out.splitlines()] == ["=> result", "* total", "* correct", "* accuracy",
                                                                 "* error", "* macro_f1", "Elapsed"]
    assert f"epoch {epochs}/{epochs}" in err.splitlines()[-1]


def test_training_warns_of_nothing(engine_cfg):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build_trainer(engine_cfg("OPTIM.MAX_EPOCH", 2, "OPTIM.WARMUP_EPOCH", 1)).train()


def test_importing_the_engine_needs_neither_tensorboard_nor_scikit_learn():
    slow = ("tensorboard", "sklearn", "matplotlib", "open_clip")
    code = f"import dassl.engine, sys; print([m for m in {slow} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:dassl", "-c", code],
        capture_output=True,
        text=True,
        cwd=__file__.rsplit("/tests/", 1)[0],
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_a_trainer_with_its_own_loop_and_prints_runs_as_in_dassl(engine_cfg, capsys):
    class Own(TRAINER_REGISTRY.get("EngineTrainer")):
        def run_epoch(self):
            self.set_model_mode("train")
            self.num_batches = len(self.train_loader_x)
            for self.batch_idx, batch in enumerate(self.train_loader_x):  # noqa: B020 (as public trainers write it)
                self.write_scalar("train/loss", self.forward_backward(batch)["loss"], self.batch_idx)
            print("own epoch", self.epoch, f"{self.get_current_lr():.4e}")

    trainer = Own(engine_cfg())
    trainer.train()
    assert capsys.readouterr().out.count("own epoch") == 4
