"""A training step reads from the device at most once; the CPU stands in for it, and every way to read is counted."""
import contextlib

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from dassl.engine import build_trainer
from tests.test_pretended_gpu import Known
from trainers import _precision

READS = {"_local_scalar_dense", "nonzero", "equal", "bincount", "_unique2", "masked_select", "is_nonzero"}
COPIES = {"tolist", "cpu", "numpy", "__array__"}            # on a CPU no operator, so they are seen as functions only
HALF = ["CoOp", "CoCoOp", "VPT", "DAPT"]                   # trainers that keep the towers in float16 and scale the loss
PIXELS = ["VP", "AR", "AttrVR", "DVPcse", "DVPcls"]


class Operators(TorchDispatchMode):
    def __init__(self, seen, not_there):
        super().__init__()
        self.seen, self.not_there = seen, not_there

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        by_mask = name == "index" and any(i is not None and i.dtype == torch.bool for i in args[1])
        if by_mask or name in READS and id(args[0]) not in self.not_there():
            self.seen.append(name)
        return function(*args, **(kwargs or {}))


class Functions(TorchFunctionMode):
    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        if name in COPIES or (name == "to" and any(str(a) == "cpu" for a in args[1:]) and args[0].device.type != "cpu"):
            self.seen.append(name)
        return function(*args, **(kwargs or {}))


def counted(trainer):
    """The trainer's steps, with a list of what each read: [["tolist"], ...]."""
    steps, step = [], trainer.forward_backward

    def own_of_optimisers():                   # Adam keeps its step count on the CPU, also for parameters of a GPU
        return {id(value) for optim in trainer.optimisers.values() if optim is not None
                for state in optim.state.values() for name, value in state.items() if name == "step"}

    def watched(batch):
        steps.append([])
        with Functions(steps[-1]), Operators(steps[-1], own_of_optimisers):
            return step(batch)

    trainer.forward_backward = watched
    return steps


@pytest.fixture
def float16(monkeypatch):
    """A CPU computes in float16 too, slowly; trainers refuse it there."""
    monkeypatch.setattr(_precision, "precision_on", lambda clip, asked: asked)


@pytest.mark.parametrize(("name", "precision"), [
    *((name, p) for name in HALF for p in ("fp32", "fp16", "bf16")), *((name, p) for name in PIXELS
                                                                       for p in ("fp32", "amp", "bf16"))])
def test_a_step_reads_once(name, precision, make_cfg, float16):
    trainer = build_trainer(make_cfg(name, f"TRAINER.{name.upper()}.PREC", precision, "TEST.NO_TEST", True))
    assert trainer.precision == precision and trainer.mixed.scaler.enabled == (precision == "fp16")
    if precision == "fp16":
        trainer.mixed.scaler.scale = 128.0                      # so that steps are taken, and some left out
    if "text" in dict(trainer.model.prompt_learner.named_children()):
        text = trainer.model.prompt_learner["text"]
        text.eot = Known(text.eot.tolist())                     # it is kept on the CPU
    steps = counted(trainer)
    trainer.train()
    steps = steps[1:]                                           # the first may compute what is kept, e.g. prototypes
    assert steps and all(reads == ["tolist"] for reads in steps), steps


def test_dassls_own_update_reads_once_in_a_trainer_of_somebody_elses(make_cfg):
    trainer, read = build_trainer(make_cfg("VP")), []
    batch = trainer.parse_batch_train(next(iter(trainer.train_loader_x)))
    loss = sum(trainer.loss(trainer.model(batch[0]), batch[1]).values())
    with Functions(read), Operators(read, set):
        trainer.model_backward_and_update(loss)
    assert read == ["tolist"]


@pytest.mark.parametrize("read", [
    lambda x: x.item(), float, int, bool, lambda x: x.tolist(), lambda x: x.cpu(), lambda x: x.numpy(),
    lambda x: torch.equal(x, x), lambda x: x[None][x[None] > 0], lambda x: x.nonzero(),
    lambda x: torch.bincount(x.long()[None])])
def test_every_way_to_read_is_seen(read):
    seen = []
    with Functions(seen), Operators(seen, set):
        read(torch.ones(()))
    assert len(seen) == 1
    with contextlib.suppress(RuntimeError), Functions(seen), Operators(seen, set):
        (torch.ones(2) * 2).sum().isfinite().all()
    assert len(seen) == 1
