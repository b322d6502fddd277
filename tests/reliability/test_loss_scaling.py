"""float16's loss scaling, with the scaler that PyTorch has for CPUs: steps it leaves out are counted, and it ends."""
import json

import pytest
import torch

from dassl.engine import build_trainer
from dassl.engine.on_nan import NotFinite

from .test_numbers import SpoiledGradient


@pytest.fixture
def scaled(make_cfg):
    def make(scale, *opts):
        trainer = build_trainer(make_cfg("CoOp", "DATALOADER.TRAIN_X.BATCH_SIZE", 4, *opts))     # 4 steps an epoch
        trainer.mixed.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        return trainer
    return make


def test_steps_that_scaling_leaves_out_are_counted_and_change_nothing(scaled, tmp_path):
    trainer = scaled(2.0 ** 16)
    loss, updates, step = trainer.loss, [], trainer.on_nan.step
    trainer.loss = lambda out, label: {"ce": SpoiledGradient.apply(loss(out, label)["ce"], 2.0 ** 14)}

    def watched(batch):
        before = trainer.model.prompt_learner["text"].ctx.detach().clone()
        losses = step(batch)
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


def test_a_run_without_scaling_goes_on_with_it(scaled, make_cfg):
    state = build_trainer(make_cfg("CoOp")).training_state()
    trainer = scaled(2.0 ** 16)
    trainer.load_training_state(state)
    assert trainer.mixed.scaler.get_scale() == 2.0 ** 16
    trainer.mixed.scaler.scale(torch.ones(1))
    state = trainer.training_state()
    other = scaled(1.0)
    other.load_training_state(state)
    assert other.mixed.scaler.get_scale() == 2.0 ** 16
