"""Precision: bf16 is honoured on a CPU, float16 needs a GPU, and what is learned stays float32."""
import pytest
import torch

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
def test_float16_is_float32_on_a_cpu(precision, make_cfg):
    assert built(make_cfg, "CoOp", precision).precision == "fp32"


def test_scores_of_inference_do_not_keep_text_features_from_training(make_cfg):
    trainer = build_trainer(make_cfg("CoOp"))
    images = next(iter(trainer.test_loader))["img"]
    assert trainer.model_inference(images).is_inference()
    with torch.no_grad():
        kept = trainer.model.text_features()
    scale = torch.ones((), requires_grad=True)
    (kept * scale).sum().backward()                       # would raise for a tensor made in inference mode
    assert scale.grad is not None
