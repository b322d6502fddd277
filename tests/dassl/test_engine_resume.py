"""A stopped and resumed training equals one that was never stopped, to the bit; and workers change nothing."""

import pytest
import torch

from dassl.engine import build_trainer
from dassl.utils import set_random_seed

EVERY = ("TRAIN.CHECKPOINT_FREQ", 1)


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


@pytest.mark.parametrize(
    "opts",
    [
        (),
        ("OPTIM.WARMUP_EPOCH", 3),
        ("OPTIM.WARMUP_TYPE", "linear", "OPTIM.WARMUP_EPOCH", 2),
        ("OPTIM.LR_SCHEDULER", "multi_step", "OPTIM.STEPSIZE", (1, 2)),
        ("OPTIM.WARMUP_RECOUNT", False),
        ("OPTIM.NAME", "adam", "OPTIM.LR", 0.01),
        ("OPTIM.NAME", "radam", "OPTIM.LR_SCHEDULER", "single_step"),
        ("TRAINER.NAME", "EngineTrainerXU", "DATASET.NAME", "EngineColoursTwice"),
        ("TEST.FINAL_MODEL", "best_val"),
        ("DATALOADER.TRAIN_X.SAMPLER", "RandomClassSampler", "DATALOADER.TRAIN_X.N_INS", 2),
        ("DATALOADER.NUM_WORKERS", 2),
    ],
    ids=lambda o: " ".join(map(str, o)) or "plain",
)
def test_resumed_equals_uninterrupted(engine_cfg, tmp_path, opts):
    whole, all_losses = train(engine_cfg(*EVERY, *opts, output="whole"))
    _, first = train(engine_cfg(*EVERY, *opts, output="halves"), stop_after=2)
    resume = engine_cfg(*EVERY, *opts, "RESUME", str(tmp_path / "halves"), output="halves")
    set_random_seed(12345)  # a new process would not be where the old one was
    again, second = train(resume)
    assert 0 < len(first) < len(all_losses)
    assert first + second == all_losses
    assert same(everything(whole), everything(again))
    assert whole.best_result == again.best_result
    assert whole.evaluator.evaluate() == again.evaluator.evaluate()


@pytest.mark.parametrize("opts", [(), ("TRAINER.NAME", "EngineTrainerXU", "DATASET.NAME", "EngineColoursTwice")])
def test_the_number_of_workers_changes_nothing(engine_cfg, opts):
    one, losses = train(engine_cfg(*opts, "DATALOADER.NUM_WORKERS", 0, output="none"))
    two, others = train(engine_cfg(*opts, "DATALOADER.NUM_WORKERS", 2, output="two"))
    assert losses == others
    assert same(everything(one), everything(two))


def test_seeds_differ_and_zero_is_one(engine_cfg):
    def weights(seed, output):
        return train(engine_cfg("SEED", seed, "OPTIM.MAX_EPOCH", 1, output=output))[0].model.state_dict()

    zero, again, one = weights(0, "a"), weights(0, "b"), weights(1, "c")
    assert same(zero, again) and not same(zero, one)


def test_two_epochs_see_different_crops_of_an_image(engine_cfg):
    loader = build_trainer(engine_cfg()).train_loader_x
    first, second = ({int(i): x for batch in loader for i, x in zip(batch["index"], batch["img"])} for _ in range(2))
    assert set(first) == set(second) == set(range(24))
    assert not any(torch.equal(first[i], second[i]) for i in first)


def test_loading_images_leaves_the_global_streams_alone(engine_cfg):
    dataset = build_trainer(engine_cfg()).train_loader_x.dataset
    from dassl.data.samplers import SeededIndex

    before = torch.get_rng_state()
    once, twice = dataset[SeededIndex(3, 7)]["img"], dataset[SeededIndex(3, 7)]["img"]
    assert torch.equal(once, twice) and torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(once, dataset[SeededIndex(3, 8)]["img"])


def test_resuming_a_finished_run_only_tests_it(engine_cfg, tmp_path):
    trained, _ = train(engine_cfg())
    again, losses = train(engine_cfg("RESUME", str(tmp_path / "run")))
    assert not losses and same(trained.model.state_dict(), again.model.state_dict())


def test_resuming_from_an_empty_folder_starts_afresh(engine_cfg, tmp_path):
    fresh, losses = train(engine_cfg(output="a"))
    other, others = train(engine_cfg("RESUME", str(tmp_path / "nothing"), output="b"))
    assert losses == others and same(everything(fresh), everything(other))


def test_models_whose_checkpoints_are_of_different_epochs_resume_at_the_earlier(engine_cfg, tmp_path):
    """As after a kill between the two files."""

    def build(*opts):
        trainer = build_trainer(engine_cfg(*EVERY, *opts))
        trainer.register_model("other", torch.nn.Linear(2, 2))
        return trainer

    trainer = build()
    trainer.train()
    (tmp_path / "run" / "other" / "checkpoint").write_text("model.pth.tar-3\n")
    (tmp_path / "run" / "other" / "model.pth.tar-4").unlink()
    resumed = build("RESUME", str(tmp_path / "run"))
    assert resumed.resume_model_if_exist(str(tmp_path / "run")) == 3
    third = torch.load(tmp_path / "run" / "model" / "model.pth.tar-3", weights_only=True)
    assert same(resumed.model.state_dict(), dict(third["state_dict"]))
