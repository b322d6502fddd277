"""VDP's student, teacher and homeostasis against their formulas written out, over a stream of three batches."""
import pytest
import torch

from clip import InputError
from dassl.config import CfgNode
from trainers.parts.classes import Classes
from trainers.vdp import VDP

OPTIONS = CfgNode({"RATE": 0.5, "DECAY": 0.9, "HOMEOSTASIS": 0.3})


@pytest.fixture
def model(tiny_clip):
    return VDP.build(tiny_clip, Classes(["cat", "dog", "small bird"]), OPTIONS).eval()


def test_a_stream_is_learned_as_the_formulas_say(model):
    torch.manual_seed(0)
    own, shared, pull = torch.zeros(3, 3, 32, 32)
    teacher = torch.zeros(2, 3, 32, 32)
    for batch in torch.rand(3, 4, 2, 3, 32, 32):
        with torch.no_grad():
            ours = VDP.predict(model, batch, OPTIONS)
        added = (own + shared).requires_grad_()
        theirs, student = (model((view - model.mean) / model.std).logits for view in (
            batch[:, 0] + teacher[0] + teacher[1], batch[:, 1] + added))
        torch.testing.assert_close(ours, theirs.detach(), rtol=0, atol=1e-5 * float(theirs.abs().max()))
        loss = sum(-(t.detach().softmax(0) * s.log_softmax(0)).sum() for t, s in zip(theirs, student)) / len(batch)
        gradient, = torch.autograd.grad(loss, added)
        pull = 0.9 * pull + 0.1 * gradient ** 2 / (gradient ** 2).mean()
        away = shared - teacher[1]
        back = (0.5 * 2 * 0.3 * pull * away).clamp(-away.abs(), away.abs())
        own, shared = own - 0.5 * gradient, shared - 0.5 * gradient - back
        teacher = 0.9 * teacher + 0.1 * torch.stack([own, shared])
    for name, value in dict(own=own, shared=shared, pull=pull, teacher=teacher).items():
        torch.testing.assert_close(getattr(model.stream, name), value, rtol=0, atol=1e-4 * float(value.abs().max()))
    assert not torch.equal(own, shared)


def test_what_is_not_finite_is_not_learned(model):
    VDP.predict(model, torch.rand(2, 2, 3, 32, 32), OPTIONS)
    before = model.stream.state_dict()
    with pytest.raises(InputError, match="not finite"):
        VDP.predict(model, torch.full((2, 2, 3, 32, 32), float("nan")), OPTIONS)
    assert all(torch.equal(value, before[name]) for name, value in model.stream.state_dict().items())
