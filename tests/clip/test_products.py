"""Products with frozen matrices by oneDNN are those of F.linear, forwards and backwards, and only where they may be."""
import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clip import FrozenCLIP, InputError, TowerShape, precision, products
from clip.blocks import Attention
from clip.processor import Processor
from dassl.engine import build_trainer
from dassl.utils.deterministic import bit_for_bit
from trainers._precision import MixedPrecision

needs_it = pytest.mark.skipif(not products.has_onednn(), reason="this PyTorch has no oneDNN for a CPU")


def drawn(*shape, generator):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@needs_it
@pytest.mark.parametrize("shape", [(7,), (2, 5), (2, 3, 4), (1, 1), (0,), (2, 0)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_outputs_and_gradients_are_those_of_the_closed_form(shape, with_bias):
    generator = torch.Generator().manual_seed(1)
    x, weight, bias = (drawn(*s, generator=generator) for s in ((*shape, 33), (18, 33), (18,)))
    upstream = drawn(*shape, 18, generator=generator)
    given = x.float().requires_grad_()
    out = products.linear(given, weight.float(), bias.float() if with_bias else None, onednn=True)
    assert type(out.grad_fn).__name__ == "_ByOneDNNBackward"
    torch.testing.assert_close(out.double(), x @ weight.T + bias * with_bias, rtol=1e-5, atol=1e-5)
    out.backward(upstream.float())
    torch.testing.assert_close(given.grad.double(), upstream @ weight, rtol=1e-5, atol=1e-5)


@needs_it
def test_views_and_expanded_gradients_are_read_as_what_they_are():
    x, weight = torch.randn(6, 4, 5).transpose(0, 1).requires_grad_(), torch.randn(8, 5)[2:]
    for onednn in (True, False):
        x.grad = None
        x.retain_grad()
        out = products.linear(x, weight, None, onednn)
        out.sum().backward()                            # its gradient is one number, expanded
        torch.testing.assert_close(x.grad, weight.sum(0).expand_as(x))
        torch.testing.assert_close(out.detach(), F.linear(x, weight).detach())


@pytest.mark.parametrize("case", ["off", "learned", "learned bias", "float64", "autocast", "meta"])
def test_elsewhere_the_product_is_pytorchs_own(case):
    device = "meta" if case == "meta" else "cpu"
    dtype = torch.float64 if case == "float64" else torch.float32
    x = torch.randn(3, 4, device=device, dtype=dtype, requires_grad=True)
    weight = torch.randn(5, 4, device=device, dtype=dtype, requires_grad=case == "learned")
    bias = torch.zeros(5, requires_grad=True) if case == "learned bias" else None
    with torch.autocast("cpu", torch.bfloat16, enabled=case == "autocast"):
        out = products.linear(x, weight, bias, onednn=case != "off")
    assert type(out.grad_fn).__name__ != "_ByOneDNNBackward"
    assert out.dtype == (torch.bfloat16 if case == "autocast" else dtype)


@pytest.fixture
def clip(tiny_clip_weights):
    return FrozenCLIP.from_state_dict(tiny_clip_weights, TowerShape(4, 4))


AMD, INTEL = (Processor(maker, frozenset({"avx2", "avx512f"})) for maker in ("AuthenticAMD", "GenuineIntel"))


def multiplies(clip, width=512, processor=AMD, choice="auto", monkeypatch=None):
    """Whether a model of that text width multiplies by oneDNN there; every product of the towers is asked."""
    monkeypatch.setattr(precision, "this_processor", lambda: processor)
    monkeypatch.setattr(products, "has_onednn", lambda: True)
    monkeypatch.setattr(clip, "text_width", width)
    onednn = MixedPrecision(clip, "fp32", half_towers=True, onednn=choice).onednn
    marked = [m for m in clip.modules() if isinstance(m, (products.Linear, Attention))]
    assert marked and all(m.onednn == onednn for m in marked)
    assert not any(type(m) is nn.Linear for block in clip.transformer.resblocks for m in block.modules())
    return onednn


@pytest.mark.parametrize(("width", "processor", "choice", "onednn", "why"), [
    (512, AMD, "auto", True, "oneDNN multiplies the towers' float32 matrices (processor: AuthenticAMD with avx2 avx"),
    (512, INTEL, "auto", False, "F.linear multiplies the towers' float32 matrices (processor: GenuineIntel with avx2 "),
    (512, Processor(), "auto", False, "(processor: unknown)"), (64, AMD, "auto", False, "(a small model)"),
    (512, AMD, "off", False, "(the choice is off)"), (64, INTEL, "on", True, "(the choice is on)"),
    (512, INTEL, "True", True, "(the choice is on)"), (512, AMD, "False", False, "(the choice is off)")])
def test_the_processor_or_an_option_chooses_the_library_and_the_log_says_why(width, processor, choice, onednn, why,
                                                                             clip, monkeypatch, caplog):
    caplog.set_level("INFO")
    assert multiplies(clip, width, processor, choice, monkeypatch) is onednn
    assert why in caplog.text


def test_under_deterministic_no_processor_chooses_but_an_option_does(clip, monkeypatch):
    with bit_for_bit():
        assert not multiplies(clip, monkeypatch=monkeypatch)
        assert multiplies(clip, choice="on", monkeypatch=monkeypatch)


def test_nothing_but_auto_on_and_off_chooses(clip):
    with pytest.raises(InputError, match="must be auto, on or off, got 'autoo'"):
        MixedPrecision(clip, "fp32", half_towers=True, onednn="autoo")


@pytest.mark.parametrize("kept", [True, False])
def test_a_resumed_run_keeps_its_library_whatever_the_processor_prefers(kept, make_cfg, monkeypatch, caplog):
    monkeypatch.setattr(precision, "_LARGE", 0)
    monkeypatch.setattr(products, "has_onednn", lambda: True)
    monkeypatch.setattr(precision, "this_processor", lambda: AMD if kept else INTEL)
    first = build_trainer(make_cfg("CoOp"))
    state = first.training_state()
    monkeypatch.setattr(precision, "this_processor", lambda: INTEL if kept else AMD)
    second = build_trainer(make_cfg("CoOp"))
    assert second.run_record_fields()["onednn_products"] is not kept
    second.load_training_state(state)
    assert second.run_record_fields()["onednn_products"] is kept
    monkeypatch.setattr(products, "has_onednn", lambda: False)
    second.load_training_state(state)
    assert second.run_record_fields()["onednn_products"] is False
    assert ("This PyTorch has no oneDNN for float32" in caplog.text) is kept


def test_a_trainer_takes_the_library_that_its_config_names(make_cfg):
    for choice in ("on", "off"):
        trainer = build_trainer(make_cfg("CoOp", "TRAIN.ONEDNN", choice))
        assert trainer.run_record_fields()["onednn_products"] is (choice == "on" and products.has_onednn())


@needs_it
def test_towers_give_the_same_features_and_gradients_either_way(clip):
    images = torch.randn(2, 3, clip.image_size, clip.image_size, requires_grad=True)
    found = []
    for onednn in (True, False):
        clip.multiply_by_onednn(onednn)
        features = clip.encode_image(images)
        found.append((features.detach(), *torch.autograd.grad(features.square().flatten()[::3].sum(), images)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@needs_it
@pytest.mark.parametrize("trainer", ["CoOp", "CoCoOp", "VPT", "DAPT", "AR"])
def test_a_step_gives_the_same_loss_and_gradients_either_way(trainer, make_cfg):
    built = build_trainer(make_cfg(trainer, *(("TRAINER.DAPT.VIS_DROPOUT", "0.0") if trainer == "DAPT" else ())))
    built.before_train()
    batch, learner = next(iter(built.train_loader_x)), built.model.prompt_learner
    start, found = copy.deepcopy(learner.state_dict()), []
    for onednn in (True, False):
        learner.load_state_dict(start)
        built.model.clip.multiply_by_onednn(onednn)
        loss = built.forward_backward(batch)["loss"]
        found.append([torch.tensor(loss), *(p.grad.clone() for p in learner.parameters())])
    built.close_writer()
    assert len(found[0]) > 1 and found[1][1].abs().max() > 1e-3
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
