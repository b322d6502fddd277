"""A stopped and resumed training equals one that was never stopped, to the bit; and workers change nothing."""

import pytest
import torch

from dassl.engine import build_trainer
from dassl.utils import UserError, set_random_seed

EVERY = {"TRAIN__CHECKPOINT_FREQ": 1}


class Stop(Exception):
    pass


def train(cfg, stop_after=None):
    """Train; the trainer and the losses of its steps. `stop_after` ends it before that epoch, like a crash."""
    trainer = build_trainer(cfg)
    losses, step, begin = [], trainer.forward_backward, trainer.before_epoch

    def recorded(*batch):
        losses.append((trainer.get_current_lr(), step(*batch)))
        return losses[-1][1]

    def before_epoch():
        if trainer.epoch == stop_after:
            raise Stop
        begin()

    trainer.forward_backward, trainer.before_epoch = recorded, before_epoch
    try:
        trainer.train()
    except Stop:
        trainer.close_loaders()
    return trainer, losses


def everything(trainer):
    return {
        "model": trainer.model.state_dict(),
        "optimizer": trainer.optim.state_dict(),
        "lr": trainer.optim.param_groups[0]["lr"],
    }


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


PAIRS = {"TRAINER__NAME": "LinearXU", "DATASET__ALL_AS_UNLABELED": True}


@pytest.mark.parametrize("changes", [
    {},
    {"OPTIM__WARMUP_EPOCH": 3},
    {"OPTIM__WARMUP_TYPE": "linear", "OPTIM__WARMUP_EPOCH": 2},
    {"OPTIM__LR_SCHEDULER": "multi_step", "OPTIM__STEPSIZE": (1, 2)},
    {"OPTIM__WARMUP_RECOUNT": False},
    {"OPTIM__NAME": "adam", "OPTIM__LR": 0.01},
    {"OPTIM__NAME": "radam", "OPTIM__LR_SCHEDULER": "single_step"},
    PAIRS,
    {"TEST__FINAL_MODEL": "best_val"},
    {"DATALOADER__TRAIN_X__SAMPLER": "RandomClassSampler", "DATALOADER__TRAIN_X__N_INS": 2},
    {"DATALOADER__NUM_WORKERS": 2, "TEST__FINAL_MODEL": "best_val"},
], ids=lambda changes: " ".join(f"{k}={v}" for k, v in changes.items()) or "plain")
def test_resumed_equals_uninterrupted(engine_cfg, tmp_path, changes):
    changes = {**EVERY, **changes}
    whole, all_losses = train(engine_cfg("whole", **changes))
    _, first = train(engine_cfg("halves", **changes), stop_after=2)
    resume = engine_cfg("halves", RESUME=str(tmp_path / "halves"), **changes)
    set_random_seed(12345)                          # a new process would not be where the old one was
    again, second = train(resume)
    assert again.start_epoch == 2 and 0 < len(first) < len(all_losses)
    assert first + second == all_losses
    assert same(everything(whole), everything(again))
    assert whole.best_result == again.best_result
    assert whole.evaluator.evaluate() == again.evaluator.evaluate()
    saved = [torch.load(tmp_path / folder / "linear" / "model.pth.tar-5", weights_only=True)["state_dict"]
             for folder in ("whole", "halves")]
    assert same(*map(dict, saved))


@pytest.mark.parametrize("changes", [{}, PAIRS], ids=["images", "pairs"])
def test_the_number_of_workers_changes_nothing(engine_cfg, changes):
    one, losses = train(engine_cfg("none", DATALOADER__NUM_WORKERS=0, **changes))
    two, others = train(engine_cfg("two", DATALOADER__NUM_WORKERS=2, **changes))
    assert losses == others
    assert same(everything(one), everything(two))


def test_seeds_differ_and_zero_is_one(engine_cfg):
    def weights(seed, output):
        return train(engine_cfg(output, SEED=seed, OPTIM__MAX_EPOCH=1))[0].model.state_dict()

    zero, again, one = weights(0, "a"), weights(0, "b"), weights(1, "c")
    assert same(zero, again) and not same(zero, one)


def test_resuming_a_finished_run_only_tests_it(engine_cfg, tmp_path):
    trained, _ = train(engine_cfg())
    again, losses = train(engine_cfg(RESUME=str(tmp_path / "run")))
    assert not losses and same(trained.model.state_dict(), again.model.state_dict())


def test_resuming_from_an_empty_folder_starts_afresh(engine_cfg, tmp_path):
    fresh, losses = train(engine_cfg("a"))
    other, others = train(engine_cfg("b", RESUME=str(tmp_path / "nothing")))
    assert losses == others and same(everything(fresh), everything(other))


def test_an_optimiser_that_does_not_fit_is_refused_with_the_way_to_load_the_weights_alone(engine_cfg, tmp_path):
    """As in checkpoints of MaPLe's VPT, whose optimiser holds parameters that are not learned."""
    train(engine_cfg())
    path = tmp_path / "run" / "linear" / "model.pth.tar-5"
    state = torch.load(path, weights_only=True)
    state["optimizer"]["param_groups"][0]["params"] = list(range(88))
    torch.save(state, path)
    with pytest.raises(UserError) as error:
        build_trainer(engine_cfg(RESUME=str(tmp_path / "run"))).train()
    told = str(error.value)
    assert f"{path} has groups of [88] parameters, but this trainer's of [2]" in told
    assert "--model-dir" in told and "MODEL.INIT_WEIGHTS" in told
    build_trainer(engine_cfg()).load_model(str(tmp_path / "run"))
    build_trainer(engine_cfg("new", MODEL__INIT_WEIGHTS=str(path), OPTIM__MAX_EPOCH=1)).train()


@pytest.mark.parametrize("newest", ["checkpoint", "autosave"])
def test_the_newest_state_is_brought_back_once(engine_cfg, tmp_path, newest, monkeypatch):
    trainer, _ = train(engine_cfg(**EVERY), stop_after=3)
    if newest == "autosave":
        trainer.autosave.begin_epoch(trainer)
        trainer.epoch = 3
        monkeypatch.setattr("dassl.stop.requested", lambda: True)
        trainer.call_hooks("safe_point", 4, 0)
        monkeypatch.undo()
    again, loaded = build_trainer(engine_cfg()), []
    monkeypatch.setattr(again.optim, "load_state_dict", lambda state: loaded.append(state))
    assert again.resume_model_if_exist(str(tmp_path / "run")) == (4 if newest == "autosave" else 3)
    assert len(loaded) == 1


def test_models_whose_checkpoints_are_of_different_epochs_resume_at_the_earlier(engine_cfg, tmp_path):
    """As after a kill between the two files."""

    def build(**changes):
        trainer = build_trainer(engine_cfg(**EVERY, **changes))
        trainer.register_model("other", torch.nn.Linear(2, 2))
        return trainer

    trainer = build()
    trainer.train()
    (tmp_path / "run" / "other" / "checkpoint").write_text("model.pth.tar-3\n")
    (tmp_path / "run" / "other" / "model.pth.tar-5").unlink()
    resumed = build(RESUME=str(tmp_path / "run"))
    assert resumed.resume_model_if_exist(str(tmp_path / "run")) == 3
    third = torch.load(tmp_path / "run" / "linear" / "model.pth.tar-3", weights_only=True)
    assert same(resumed.model.state_dict(), dict(third["state_dict"]))
