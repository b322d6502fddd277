"""float16's loss scaling, forced on a CPU: it is PyTorch's GradScaler, counts the steps it leaves out, and ends."""
import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dassl.engine import build_trainer
from dassl.engine.hooks.on_nan import NotFinite
from dassl.optim.loss_scaler import LossScaler

from .test_numbers import SpoiledGradient


@pytest.fixture
def scaled(make_cfg):
    def make(scale, *opts):
        trainer = build_trainer(make_cfg("CoOp", "DATALOADER.TRAIN_X.BATCH_SIZE", 4, *opts))     # 4 steps an epoch
        trainer.mixed.scaler = LossScaler(scale=scale)
        return trainer
    return make


def test_steps_that_scaling_leaves_out_are_counted_and_change_nothing(scaled, tmp_path):
    trainer = scaled(2.0 ** 16)
    loss, updates, step = trainer.loss, [], trainer.on_nan.step
    trainer.loss = lambda out, label: {"ce": SpoiledGradient.apply(loss(out, label)["ce"], 2.0 ** 14)}

    def watched(*batch):
        before = trainer.model.prompt_learner["text"].ctx.detach().clone()
        losses = step(*batch)
        updates.append(not torch.equal(before, trainer.model.prompt_learner["text"].ctx))
        return losses

    trainer.on_nan.step = watched
    trainer.train()
    assert updates == [False, False, *[True] * 6]                    # 2^16, 2^15, then small enough
    assert json.loads((tmp_path / "run" / "results.json").read_text())["on_nan"]["skipped_steps"] == 2


def test_gradients_that_no_scale_makes_finite_end_the_run(scaled):
    trainer = scaled(4.0)
    loss = trainer.loss
    trainer.loss = lambda out, label: {"ce": SpoiledGradient.apply(loss(out, label)["ce"])}
    with pytest.raises(NotFinite, match="The gradient of .*ctx is infinite or NaN.*epoch 1, batch 4 of 4"):
        trainer.train()                                              # 4, 2, 1, then below


def test_a_run_without_scaling_resumes_with_it(scaled, make_cfg):
    state = build_trainer(make_cfg("CoOp")).training_state()
    assert state["scaler"] == {}
    trainer = scaled(2.0 ** 16)
    trainer.load_training_state(state)
    assert trainer.mixed.scaler.scale == 2.0 ** 16
    other = scaled(1.0)
    other.load_training_state(trainer.training_state())
    assert other.mixed.scaler.scale == 2.0 ** 16


@settings(max_examples=50)
@given(finite=st.lists(st.booleans(), max_size=40), half=st.integers(0, 40))
def test_scale_and_updates_are_those_of_gradscaler(finite, half):
    """The second half resumes from the other one's state dict."""
    def begin():
        p = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
        return p, torch.optim.SGD([p], lr=0.1, momentum=0.9)

    (p, optim), (q, reference) = begin(), begin()
    ours, theirs = LossScaler(growth_interval=3), torch.amp.GradScaler("cpu", growth_interval=3)
    for number, good in enumerate(finite):
        if number == half:
            state, saved = ours.state_dict(), theirs.state_dict()
            assert state == saved
            ours, theirs = LossScaler(), torch.amp.GradScaler("cpu")
            ours.load_state_dict(saved)
            theirs.load_state_dict(state)
        factor = 0.1 * (number + 1) if good else math.inf
        optim.zero_grad()
        reference.zero_grad()
        ours.scaled((p * factor).sum()).backward()
        theirs.scale((q * factor).sum()).backward()
        if p.grad.isfinite().all():
            ours.unscale([p.grad])
            optim.step()
        ours.update(bool(p.grad.isfinite().all()))
        theirs.step(reference)
        theirs.update()
        assert torch.equal(p, q) and ours.state_dict() == theirs.state_dict()
