"""Numbers that are not finite are found at their step and met as asked; an accuracy at chance says so."""
import json
import math

import pytest
import torch

from dassl.chance import ABOVE, BELOW, CHANCE, TOO_FEW, explain, reachable, versus_guessing
from dassl.engine import build_trainer
from dassl.engine.hooks.on_nan import MOST_IN_A_ROW, NotFinite
from dassl.utils import UserError
from tools import train
from tools.predict import load


class SpoiledGradient(torch.autograd.Function):
    """The identity, whose gradient is NaN where it would be larger than `limit`."""

    @staticmethod
    def forward(ctx, x, limit=-1.0):
        ctx.limit = limit
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return (gradient * math.nan if gradient.abs().max() > ctx.limit else gradient), None


def in_loss(terms):
    return {**terms, "extra": terms["ce"] * math.inf}


def in_gradient(terms):
    return {name: SpoiledGradient.apply(value) for name, value in terms.items()}


def broken(trainer, spoil, at):
    """The trainer, whose loss is spoiled at the steps of these numbers, counted from 0."""
    loss, steps = trainer.loss, []

    def spoiled(out, label):
        steps.append(len(label))
        return spoil(loss(out, label)) if len(steps) - 1 in at else loss(out, label)

    trainer.loss = spoiled
    return trainer


def learned(trainer):
    return [p.detach().clone() for p in trainer.model.prompt_learner.parameters()]


@pytest.fixture
def few(make_cfg, tmp_path):
    def make(*opts, name="CoOp"):
        return make_cfg(name, "OPTIM.MAX_EPOCH", 2, "DATALOADER.TRAIN_X.BATCH_SIZE", 4, *opts)     # 4 steps an epoch
    return make


@pytest.mark.parametrize(("spoil", "what"), [(in_loss, "in its term extra"), (in_gradient, "The gradient of ")])
def test_the_step_is_named_and_nothing_was_updated_by_it(few, spoil, what):
    trainer = broken(build_trainer(few()), spoil, at={5})
    before = {}
    step = trainer.forward_backward

    def remembered(batch):
        before["learned"], before["files"] = learned(trainer), batch["impath"]
        return step(batch)

    trainer.forward_backward = remembered
    with pytest.raises(NotFinite) as stop:
        trainer.train()
    text = str(stop.value)
    assert what in text and "at epoch 2, batch 2 of 4" in text and "learning rate" in text and "--on-nan skip" in text
    assert all(path in text for path in before["files"])
    assert all(map(torch.equal, before["learned"], learned(trainer)))


@pytest.mark.parametrize(("steps", "at"), [(4, 1), (1, 1), (4, 4)])
def test_an_update_that_overflows_is_named_and_nothing_of_it_is_saved(few, tmp_path, steps, at):
    """At the next step, or after the epoch's last one."""
    trainer = build_trainer(few("OPTIM.NAME", "sgd", "OPTIM.LR", 1e30, "OPTIM.WARMUP_EPOCH", 0, "OPTIM.WEIGHT_DECAY", 0,
                                "DATALOADER.TRAIN_X.BATCH_SIZE", 16 // steps, "TRAIN.CHECKPOINT_FREQ", 1))
    trainer.loss = lambda out, batch: {"ce": (1e15 if trainer.batch_idx + 1 == at else 0) *
                                       torch.nn.functional.cross_entropy(out.logits, batch["label"])}
    with pytest.raises(NotFinite, match=rf"The update at epoch 1, batch {at} of {steps} .*made .*ctx infin.*OPTIM.LR"):
        trainer.train()
    assert not list(tmp_path.glob("run/**/*.pth.tar*"))


def test_what_is_not_finite_is_never_saved(few, tmp_path):
    trainer = build_trainer(few("TRAIN.CHECKPOINT_SECONDS", "1e-9"))
    with torch.no_grad():
        trainer.model.prompt_learner["text"].ctx[0, 0] = math.inf
    for save in (lambda: trainer.save_model(0, str(tmp_path)), lambda: trainer.call_hooks("safe_point", 1, 0)):
        with pytest.raises(NotFinite, match="The learned .*ctx is infinite or NaN before its first update"):
            save()
    assert not list(tmp_path.rglob("*.pth.tar*"))


def test_a_trainer_that_updates_by_itself_is_checked_at_every_step(few):
    trainer = build_trainer(few())

    def own_step(batch):
        trainer.detect_anomaly(torch.zeros(()))
        with torch.no_grad():
            trainer.model.prompt_learner["text"].ctx *= math.inf if trainer.batch_idx == 1 else 1
        return {"loss": 0.0}

    trainer.forward_backward = own_step
    with pytest.raises(NotFinite, match="The update at epoch 1, batch 2 of 4"):
        trainer.train()


@pytest.mark.parametrize(("spoil", "name"), [
    (in_loss, "CoOp"), (in_gradient, "AttrVR")])                    # whose schedules are per epoch and per step
def test_skip_leaves_out_exactly_the_step_and_records_it(few, spoil, name, tmp_path, caplog):
    trainer = broken(build_trainer(few("TRAIN.ON_NAN", "skip", name=name)), spoil, at={1, 3})
    updates, rates, step = [], [], trainer.on_nan.step

    def watched(*batch):
        before = learned(trainer)
        result = step(*batch)
        updates.append(not all(map(torch.equal, before, learned(trainer))))
        rates.append(trainer.get_current_lr())
        return result

    trainer.on_nan.step = watched
    trainer.train()
    assert updates == [True, False, True, False, True, True, True, True]
    record = json.loads((tmp_path / "run" / "results.json").read_text())
    assert record["on_nan"] == {"policy": "skip", "skipped_steps": 2}
    assert "Step left out (TRAIN.ON_NAN skip), number 2" in caplog.text
    plain = build_trainer(few(name=name))
    plain_rates, plain_step = [], plain.on_nan.step
    plain.on_nan.step = lambda *batch: (plain_step(*batch), plain_rates.append(plain.get_current_lr()))[0]
    plain.train()
    assert rates == plain_rates, "the schedule continues as if the step had been taken"


def test_too_many_skipped_steps_in_a_row_stop(few):
    trainer = broken(build_trainer(few("TRAIN.ON_NAN", "skip", "OPTIM.MAX_EPOCH", 9)), in_loss, at=set(range(3, 99)))
    with pytest.raises(NotFinite, match=f"{MOST_IN_A_ROW + 1} steps in a row were not finite.*in its term extra"):
        trainer.train()


@pytest.mark.parametrize("number", ["nan", "inf"])
def test_learned_numbers_that_are_not_finite_are_refused_wherever_they_are_read(number, few, tmp_path):
    trainer = build_trainer(few("OPTIM.MAX_EPOCH", 1))
    trainer.train()
    (tmp_path / "run" / "config.yaml").write_text(trainer.cfg.dump())
    file = tmp_path / "run" / "prompt_learner" / "model.pth.tar-1"
    state = torch.load(file)
    state["state_dict"] = {name: value * float(number) for name, value in state["state_dict"].items()}
    torch.save(state, file)
    for read in (lambda: trainer.load_model(str(tmp_path / "run")), lambda: load(tmp_path / "run"),
                 lambda: build_trainer(few("MODEL.INIT_WEIGHTS", str(file)))):
        with pytest.raises(UserError, match="text.ctx in the checkpoint .*tar-1 has numbers that are NaN or infinite"):
            read()


def test_scores_that_are_nan_are_no_result(few):
    trainer = build_trainer(few("OPTIM.MAX_EPOCH", 0))
    trainer.model_inference = lambda images: torch.full((len(images), 4), float("nan"))
    with pytest.raises(UserError, match="images have scores that are NaN"):
        trainer.test()


def test_an_unknown_policy_is_refused(few, capsys):
    with pytest.raises(UserError, match="TRAIN.ON_NAN.*stop or skip, got 'skpi'.*Did you mean skip"):
        build_trainer(few("TRAIN.ON_NAN", "skpi"))
    with pytest.raises(SystemExit):
        train.parser().parse_args(["--trainer", "CoOp", "--on-nan", "fp32"])
    assert "invalid choice: 'fp32'" in capsys.readouterr().err


def test_the_flag_reaches_the_config():
    for flag, policy in ((["--on-nan", "skip"], "skip"), ([], "stop")):
        assert train.setup_cfg(train.parser().parse_args(["--trainer", "CoOp", *flag])).TRAIN.ON_NAN == policy


def at_least(k, n, p):
    return sum(math.comb(n, j) * p ** j * (1 - p) ** (n - j) for j in range(k, n + 1))


@pytest.mark.parametrize(("total", "classes"), [(1, 3), (7, 2), (24, 4), (100, 10), (719, 10), (500, 1000)])
def test_what_luck_reaches_is_the_binomial_bound(total, classes):
    most = reachable(total, classes)
    assert at_least(most, total, 1 / classes) > 0.01 >= at_least(most + 1, total, 1 / classes)


@pytest.mark.parametrize(("correct", "total", "classes", "verdict"), [
    (72, 719, 10, CHANCE), (91, 719, 10, CHANCE), (92, 719, 10, ABOVE), (22, 719, 10, BELOW), (72, 719, 100, ABOVE),
    (50, 50, 1, ABOVE), (0, 0, 2, ABOVE), (4, 4, 2, TOO_FEW), (0, 4, 2, TOO_FEW), (18, 18, 3, ABOVE), (0, 18, 3, BELOW),
    (6, 18, 3, CHANCE), (0, 5, 1000, CHANCE), (2, 5, 1000, ABOVE)])
def test_an_accuracy_is_compared_with_guessing_as_far_as_its_images_tell(correct, total, classes, verdict):
    assert versus_guessing(correct, total, classes) == verdict


def test_each_verdict_says_what_it_means():
    assert explain(ABOVE, 4, 4, 2) == ""
    at = explain(CHANCE, 72, 719, 10)
    assert "at chance: 10.0% of 719 images" in at and "up to 12.7%" in at
    assert "all 4 right in 6 of 100 tests" in explain(TOO_FEW, 4, 4, 2)
    assert "Labels may be permuted" in explain(BELOW, 0, 18, 3)


def test_a_run_at_chance_says_so_and_one_that_learned_does_not(few, tmp_path, caplog):
    trainer = build_trainer(few("OPTIM.MAX_EPOCH", 0))
    trainer.model_inference = lambda images: torch.arange(len(images) * 4.0).view(-1, 4)         # always the last class
    trainer.test()
    assert "This accuracy is at chance: 25.0% of 24 images" in caplog.text
    assert json.loads((tmp_path / "run" / "results.json").read_text())["at_chance"] is True
    caplog.clear()
    labels = iter([label for batch in trainer.test_loader for label in batch["label"].tolist()])
    trainer.model_inference = lambda images: torch.eye(4)[[next(labels) for _ in images]]
    trainer.test()
    assert "at chance" not in caplog.text
    assert json.loads((tmp_path / "run" / "results.json").read_text())["at_chance"] is False
