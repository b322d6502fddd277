"""Precision and compilation: bf16 is honoured on a CPU, float16 needs a GPU, and what is learned stays float32."""
import shutil

import pytest
import torch

from clip import precision as of_clip
from clip.processor import Processor
from dassl.engine import build_trainer

LEARNERS = ["CoOp", "CoCoOp", "VPT", "DAPT", "AR"]


def built(make_cfg, name, precision):
    return build_trainer(make_cfg(name, f"TRAINER.{name.upper()}.PREC", precision, "TEST.NO_TEST", True))


@pytest.mark.parametrize("name", LEARNERS)
def test_bf16_runs_on_a_cpu_with_float32_prompts_and_nearly_the_same_loss(name, make_cfg):
    losses = {}
    for precision in ("fp32", "bf16"):
        trainer = built(make_cfg, name, precision)
        batch = next(iter(trainer.train_loader_x))
        trainer.num_batches = 10
        losses[precision] = trainer.forward_backward(batch)["loss"]
        assert trainer.precision == precision == trainer.run_record_fields()["precision"]
        assert {p.dtype for p in trainer.model.prompt_learner.parameters()} == {torch.float32}
        assert all(p.grad.isfinite().all() for p in trainer.model.prompt_learner.parameters())
    assert losses["bf16"] != losses["fp32"]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.05)


@pytest.mark.skipif(torch.cuda.is_available(), reason="float16 is honoured on a GPU")
@pytest.mark.parametrize("precision", ["fp16", "amp"])
def test_float16_is_float32_for_a_small_model_on_a_cpu(precision, make_cfg):
    assert built(make_cfg, "CoOp", precision).precision == "fp32"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU has float16")
@pytest.mark.parametrize(("flags", "precision", "why"), [
    ({"avx2", "avx512f"}, "fp32", "does not multiply"), (set(), "fp32", "does not multiply"),
    ({"avx512_bf16"}, "bf16", "multiplies"), ({"amx_bf16"}, "bf16", "multiplies")])
@pytest.mark.parametrize("asked", ["fp16", "amp"])
def test_a_large_model_takes_bf16_for_float16_on_a_cpu_that_has_it_in_hardware(flags, precision, why, asked, make_cfg,
                                                                               monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(of_clip, "_LARGE", 0)
    monkeypatch.setattr(of_clip, "this_processor", lambda: Processor("AuthenticAMD", frozenset(flags)))
    assert built(make_cfg, "CoOp", asked).precision == precision
    assert f"PREC {asked} is {precision} on this CPU, which {why} bfloat16 in hardware" in caplog.text
    assert built(make_cfg, "CoOp", "fp32").precision == "fp32"


def test_scores_of_inference_do_not_keep_text_features_from_training(make_cfg):
    trainer = build_trainer(make_cfg("CoOp"))
    images = next(iter(trainer.test_loader))["img"]
    assert trainer.model_inference(images).is_inference()
    with torch.no_grad():
        kept = trainer.model.text_features()
    scale = torch.ones((), requires_grad=True)
    (kept * scale).sum().backward()                       # would raise for a tensor made in inference mode
    assert scale.grad is not None


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile on a CPU needs a C++ compiler")
def test_a_compiled_image_tower_gives_the_same_loss_and_gradients(make_cfg):
    losses, gradients = [], []
    for compiled in (False, True):
        trainer = build_trainer(make_cfg("DAPT", "TRAIN.COMPILE", compiled))
        assert [block._compiled_call_impl is not None for block in trainer.model.clip.visual.transformer.resblocks] == \
            [compiled] * trainer.model.clip.depth
        batch = next(iter(trainer.train_loader_x))
        trainer.num_batches = 10
        losses.append(trainer.forward_backward(batch)["loss"])
        gradients.append(torch.cat([p.grad.flatten() for p in trainer.model.prompt_learner.parameters()]))
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-6)
