"""Where a GPU is not at hand: a step on tensors that only claim to be on one mixes no devices and moves nothing."""
import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from clip.packing import pack
from dassl.engine import build_trainer
from trainers._precision import DTYPES

PROMPTS, PIXELS = ["CoOp", "CoCoOp", "VPT", "DAPT"], ["VP", "AR", "AttrVR", "DVPcse", "DVPcls"]


class Known:
    """Whole numbers on the CPU whose values may be asked for, which a tensor without storage cannot tell."""

    def __init__(self, values):
        self.values = values

    def __add__(self, number):
        return Known([v + number for v in self.values])

    def __sub__(self, number):
        return self + -number

    def __getitem__(self, part):
        return Known(self.values[part])

    def tolist(self):
        return self.values


class Moves(TorchDispatchMode):
    """Operations that touch a tensor (other than a single number) which is not on the GPU."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, torch.Tensor) and t.dim()]
        if any(t.device.type != "cuda" for t in tensors):
            self.seen.append(str(function))
        return out


def pretend(gpu: FakeTensorMode, module):
    """Every parameter and buffer of the module gives way to one of the same shape that claims to be on a GPU."""
    with gpu:
        for part in module.modules():
            for tensors in (part._parameters, part._buffers):
                for name, value in tensors.items():
                    if value is not None:
                        fake = torch.empty(value.shape, dtype=value.dtype, device="cuda")
                        is_learned = isinstance(value, torch.nn.Parameter)
                        tensors[name] = torch.nn.Parameter(fake, value.requires_grad) if is_learned else fake


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    pack.cache_clear()
    yield FakeTensorMode()
    pack.cache_clear()


@pytest.mark.skipif(torch.cuda.is_available(), reason="a real GPU is at hand")
@pytest.mark.parametrize(("name", "precision", "options"), [
    *((PROMPTS[0], p, ()) for p in ("fp32", "bf16")), *((name, "fp16", ()) for name in PROMPTS),
    *((PIXELS[0], p, ()) for p in ("fp32", "bf16")), *((name, "amp", ()) for name in PIXELS),
    ("CoOp", "fp16", ("TRAINER.COOP.CSC", True)), ("CoOp", "fp16", ("TRAINER.COOP.CLASS_TOKEN_POSITION", "front"))])
def test_a_step_stays_on_the_gpu_and_its_loss_in_float32(name, precision, options, make_cfg, gpu):
    trainer = build_trainer(make_cfg(name, f"TRAINER.{name.upper()}.PREC", precision, *options))
    trainer.before_train()
    trainer.set_model_mode("train")
    model, learner, dtype = trainer.model, trainer.model.prompt_learner, DTYPES.get(precision)
    if trainer.half_towers and dtype:
        model.clip.half_weights(dtype)
    trainer.mixed.device_type, trainer.mixed.dtype = "cuda", dtype
    with gpu:
        if name == "DAPT":
            trainer.prototypes = torch.empty(len(trainer.classes.names), model.clip.embed_dim, device="cuda")
        if name in ("AttrVR", "DVPcse", "DVPcls"):
            learner["bank"]._features = torch.empty(learner["bank"]._features.shape, device="cuda")
        if "text" in learner:
            learner["text"].eot = Known(learner["text"].eot.tolist())
    pretend(gpu, model)
    with gpu:
        images = torch.empty(8, 3, *trainer.cfg.INPUT.SIZE, device="cuda")
        label = torch.zeros(8, dtype=torch.int64, device="cuda")
        for _ in range(2):                                           # the first step fills what is kept
            moves = Moves()
            with moves, trainer.mixed.autocast():
                out = model(images)
            with moves:
                terms = trainer.loss(out, {"img": images, "label": label})
    assert moves.seen == []
    assert {(t.dtype, t.device.type) for t in (out.logits, *terms.values())} == {(torch.float32, "cuda")}
