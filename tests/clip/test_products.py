"""Products with frozen matrices by oneDNN are those of F.linear, forwards and backwards, and only where they may be."""
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clip import FrozenCLIP, TowerShape, products
from clip.blocks import Attention
from dassl.engine import build_trainer
from dassl.utils.deterministic import bit_for_bit
from trainers import _precision

HAS_IT = products.onednn_gain() > 0
needs_it = pytest.mark.skipif(not HAS_IT, reason="this PyTorch has no oneDNN for a CPU")


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


@pytest.mark.parametrize(("width", "gain", "taken"), [(512, 2.0, True), (512, 1.1, False), (512, 0.0, False),
                                                      (64, 2.0, False)])
def test_large_towers_take_it_where_it_is_measured_to_be_faster(width, gain, taken, clip, monkeypatch):
    monkeypatch.setattr(_precision, "onednn_gain", lambda: gain)
    clip.text_width = width
    _precision.MixedPrecision(clip, "fp32", half_towers=True)
    marked = [m for m in clip.modules() if isinstance(m, (products.Linear, Attention))]
    assert marked and all(m.onednn == taken for m in marked)
    with bit_for_bit():
        assert not _precision.MixedPrecision(clip, "fp32", half_towers=True).onednn
    assert not any(type(m) is nn.Linear for block in clip.transformer.resblocks for m in block.modules())


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
    batch = next(iter(built.train_loader_x))
    found = []
    for onednn in (True, False):
        built.model.clip.multiply_by_onednn(onednn)
        *_, loss = built.gradients(batch)
        found.append([loss, *(p.grad.clone() for p in built.model.prompt_learner.parameters())])
    built.close_writer()
    assert len(found[0]) > 1 and found[1][1].abs().max() > 1e-3
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
