"""The loop: hooks in Dassl's order, its lines in the log, choices of the final model, losses that break."""
import json
import re
import shutil
import warnings

import pytest
import torch
from torch import nn

from dassl.engine import TRAINER_REGISTRY, TrainerBase, TrainerX, build_trainer
from dassl.engine.hooks import Hook
from dassl.utils import UserError, load_checkpoint, setup_logger

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
    trainer = build_trainer(engine_cfg(OPTIM__MAX_EPOCH=2))
    calls = spy(trainer)
    trainer.train()
    epoch = ["before_epoch", "run_epoch", *["forward_backward"] * 4, "after_epoch"]
    assert calls == ["before_train", *epoch, *epoch, "after_train", "test"]
    assert (trainer.epoch, trainer.batch_idx, trainer.num_batches, trainer.max_epoch) == (1, 3, 4, 2)


@pytest.mark.parametrize("no_test", [False, True])
def test_a_hook_is_called_at_its_moments(engine_cfg, no_test):
    trainer, seen = build_trainer(engine_cfg(OPTIM__MAX_EPOCH=1, TEST__NO_TEST=no_test)), []
    moments = [name for name in vars(Hook) if not name.startswith("_") and name != "ignore"]
    watch = type("Watch", (Hook,), {m: lambda self, trainer, *values, m=m: seen.append(m) for m in moments})
    trainer.hooks.append(watch())
    trainer.train()
    step, end = ["before_step", "after_step"], ["after_batches", "safe_point", "after_train"]
    test = ["untested"] if no_test else ["before_test", "before_answer", "answered", "before_writing", "tested"]
    assert seen == ["before_writing", "before_train", "before_epochs", "before_epoch", "before_batches",
                    *[*step, "safe_point"] * 3, *step, *end, *test, "finished"]
    assert set(moments) == set(seen) | {"before_test", "before_answer", "answered", "tested", "untested",
                                       "tested_itself"}


def test_models_are_public_and_a_trainer_may_use_the_names_for_something_else(engine_cfg):
    trainer = build_trainer(engine_cfg(OPTIM__MAX_EPOCH=1))
    assert trainer.models == {"linear": trainer.model} and trainer.optimisers == {"linear": trainer.optim}
    assert trainer.schedules == {"linear": trainer.sched}
    trainer.models = trainer.optimisers = trainer.schedules = ["mine"]
    trainer.train()
    assert trainer.models == ["mine"] and trainer.get_model_names() == ["linear"]


def test_construction_checks_then_loads_data_then_builds_a_backbone_with_a_classifier(engine_cfg, monkeypatch):
    class Usual(TrainerX):
        pass

    calls = []
    for name in ("check_cfg", "build_data_loader", "build_model"):
        original = getattr(TrainerX, name)
        monkeypatch.setattr(TrainerX, name, lambda self, *a, n=name, f=original: (calls.append(n), f(self, *a))[1])
    trainer = Usual(engine_cfg(MODEL__BACKBONE__NAME="engine_pixels"))
    assert calls == ["check_cfg", "build_data_loader", "build_model"]
    assert trainer.num_classes == 3 and trainer.lab2cname[0] == "ant" and trainer.dm.dataset.classnames[2] == "cat"
    assert trainer.get_model_names() == ["model"] and trainer.get_model_names("model") == ["model"]
    assert trainer.model(torch.zeros(2, 3, 8, 8)).shape == (2, 3)


def test_training_learns_and_the_log_has_dassls_lines(engine_cfg, tmp_path):
    with setup_logger(str(tmp_path / "run")):
        cfg = engine_cfg(OPTIM__MAX_EPOCH=8, OPTIM__NAME="adam", OPTIM__LR=0.003, TRAIN__PRINT_FREQ=2)
        build_trainer(cfg).train()
    log = (tmp_path / "run" / "log.txt").read_text()
    for line in (
        r"epoch \[1/8\] batch \[2/4\] time \d+\.\d{3} \(\d+\.\d{3}\) data \d+\.\d{3} \(\d+\.\d{3}\) loss \d+\.\d{4} "
        r"\(\d+\.\d{4}\) acc \d+\.\d{4} \(\d+\.\d{4}\) lr 1\.0000e-05 eta \d:\d\d:\d\d",
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
    assert float(re.search(r"\* accuracy: (.*)%", log)[1]) > 60 and "Evaluate on the *val* set" not in log


def test_a_run_that_is_not_finished_has_no_results(engine_cfg, tmp_path):
    trainer = build_trainer(engine_cfg(TEST__FINAL_MODEL="best_val"))
    trainer.after_train = lambda: None  # evaluated on val in each epoch, then killed
    trainer.train()
    trainer.close_loaders()
    assert not (tmp_path / "run" / "results.json").exists()


def test_best_val_deploys_the_epoch_that_is_best_on_val_and_never_looks_at_test(engine_cfg, tmp_path, monkeypatch,
                                                                            caplog):
    caplog.set_level("INFO")
    trainer, asked = build_trainer(engine_cfg(TEST__FINAL_MODEL="best_val")), []
    real, scripted = trainer.test, iter([40.0, 70.0, 60.0, 70.0, 10.0])

    def test(split=None):
        asked.append(split)
        return next(scripted) if split == "val" else real(split)

    monkeypatch.setattr(trainer, "test", test)
    trainer.train()
    assert asked == ["val"] * 5 + [None]
    best = load_checkpoint(str(tmp_path / "run" / "linear" / "model-best.pth.tar"))
    assert (best["epoch"], best["val_result"]) == (2, 70.0)
    assert all(torch.equal(a, b) for a, b in zip(trainer.model.parameters(), best["state_dict"].values(), strict=True))
    assert "Deploy the model with the best val performance" in caplog.text
    assert "validation split" in json.loads((tmp_path / "run" / "results.json").read_text())["model_selection"]


def test_best_val_without_a_validation_split_is_refused(engine_cfg, tmp_path, write_splits):
    write_splits(tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / "val")
    with pytest.raises(UserError, match="best_val.*EngineToy"):
        build_trainer(engine_cfg(DATASET__ROOT=str(tmp_path / "data"), TEST__FINAL_MODEL="best_val")).train()


@pytest.mark.parametrize(
    "change, told",
    [
        ({"TEST__FINAL_MODEL": "best-val"}, "best_val"),
        ({"TEST__SPLIT": "tset"}, "test"),
        ({"TRAINER__NAME": "Linaer"}, "Linear"),
        ({"DATASET__NAME": "EngineTyo"}, "EngineToy"),
    ],
)
def test_unknown_choices_are_refused_with_the_known_ones(engine_cfg, change, told):
    with pytest.raises(UserError, match=told):
        build_trainer(engine_cfg(**change))


def test_no_test_trains_and_stops(engine_cfg, tmp_path):
    trainer = build_trainer(engine_cfg(TEST__NO_TEST=True))
    calls = spy(trainer)
    trainer.train()
    assert "test" not in calls and (tmp_path / "run" / "linear" / "model.pth.tar-5").exists()


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


@pytest.mark.parametrize("count, batches", [("train_x", 4), ("train_u", 6), ("smaller_one", 4)])
def test_trainer_xu_pairs_batches_and_starts_the_shorter_loader_again(engine_cfg, count, batches):
    trainer = build_trainer(engine_cfg(TRAINER__NAME="LinearXU", DATASET__ALL_AS_UNLABELED=True, OPTIM__MAX_EPOCH=2,
                               DATALOADER__TRAIN_U__SAME_AS_X=False, DATALOADER__TRAIN_U__BATCH_SIZE=2,
                               TRAIN__COUNT_ITER=count))
    trainer.train()
    assert trainer.pairs == [(4, 2)] * 2 * batches


def test_trainer_xu_tells_an_unknown_way_to_count(engine_cfg):
    cfg = engine_cfg(TRAINER__NAME="LinearXU", DATASET__ALL_AS_UNLABELED=True, TRAIN__COUNT_ITER="both")
    with pytest.raises(UserError, match="train_x, train_u, smaller_one, got 'both'"):
        build_trainer(cfg).train()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_broken_loss_names_its_term_epoch_batch_and_images(engine_cfg, value):
    trainer = build_trainer(engine_cfg(OPTIM__WARMUP_EPOCH=0))
    nn.init.constant_(trainer.model[2].bias[:1], value)
    with pytest.raises(FloatingPointError, match=r"(?s)loss.*epoch 1, batch 1 of 4 .*images .*png"):      # as Dassl
        trainer.train()
    trainer = build_trainer(engine_cfg())
    trainer.epoch, trainer.batch_idx, trainer.num_batches = 2, 6, 9
    with pytest.raises(UserError) as error:
        trainer.finish_step({"cross_entropy": torch.tensor(1.0), "inter": torch.tensor(value)}, {})
    told = str(error.value)
    assert isinstance(error.value, FloatingPointError) and "in its term inter at epoch 3, batch 7 of 9" in told
    assert "smaller OPTIM.LR" in told and "smaller weight on inter" in told
    assert trainer.finish_step({"cross_entropy": torch.tensor(1.0)}, {"two": torch.tensor([2.0])}) == {"two": 2.0}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_broken_loss_ends_the_parts_of_dassls_step_too(engine_cfg, value):
    trainer = build_trainer(engine_cfg())
    for step in (trainer.detect_anomaly, trainer.model_backward, trainer.model_backward_and_update):
        with pytest.raises(FloatingPointError, match="in its term loss"):
            step(value * trainer.model(torch.ones(1, 3, 8, 8)).sum())
    trainer.model_backward_and_update(trainer.model(torch.ones(1, 3, 8, 8)).sum())


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
    assert [round(e.value, 5) for e in events.Scalars("train/lr")][:4] == [1e-5, 1e-5, 1e-5, 0.002]


@pytest.mark.parametrize("epochs", [1, 4, 40])
def test_a_run_says_at_most_ten_lines_where_there_is_no_terminal(engine_cfg, capfd, epochs):
    build_trainer(engine_cfg(OPTIM__MAX_EPOCH=epochs)).train()
    out, err = capfd.readouterr()
    assert 1 <= len(err.splitlines()) <= 10 and "epoch" in err
    assert [line.split(":")[0] for line in out.splitlines()] == ["=> result", "* total", "* correct", "* accuracy",
                                                                 "* error", "* macro_f1", "Elapsed"]
    assert f"epoch {epochs}/{epochs}" in err.splitlines()[-1]


def test_training_warns_of_nothing(engine_cfg):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build_trainer(engine_cfg(OPTIM__MAX_EPOCH=2)).train()


def test_a_trainer_with_its_own_loop_and_prints_runs_as_in_dassl(engine_cfg, capsys):
    class Own(TRAINER_REGISTRY.get("Linear")):
        def run_epoch(self):
            self.set_model_mode("train")
            self.num_batches = len(self.train_loader_x)
            for self.batch_idx, batch in enumerate(self.train_loader_x):  # noqa: B020 (as public trainers write it)
                self.write_scalar("train/loss", self.forward_backward(batch)["loss"], self.batch_idx)
            print("own epoch", self.epoch, f"{self.get_current_lr():.4e}")

    trainer = Own(engine_cfg())
    trainer.train()
    assert capsys.readouterr().out.count("own epoch") == 5
