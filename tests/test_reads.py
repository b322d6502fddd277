"""A training step reads from the device at most once; the CPU takes its place, and every way to read is counted."""
import contextlib

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from dassl.engine import TRAINER_REGISTRY, TrainerX, build_trainer, plugins
from tests.test_pretended_gpu import Known
from trainers import _precision
from trainers.attacked import AttackedTrainer

READS = {"_local_scalar_dense", "nonzero", "equal", "bincount", "_unique2", "masked_select", "is_nonzero"}
COPIES = {"tolist", "cpu", "numpy", "__array__"}            # on a CPU no operator, so they are seen as functions only
plugins.discover("trainers")
METHODS = {name: TRAINER_REGISTRY.get(name) for name in sorted(TRAINER_REGISTRY.registered_names())
           if TRAINER_REGISTRY.get(name).__module__.startswith("trainers.")}


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
        self.seen, self.drawn = seen, []                    # drawn on the CPU, unless it says where

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        if name in ("rand", "randperm") and "device" not in (kwargs or {}):
            self.drawn.append(function(*args, **(kwargs or {})))
            return self.drawn[-1]
        to_cpu = name == "to" and any(str(a) == "cpu" for a in args[1:]) and args[0].device.type != "cpu"
        if to_cpu or name in COPIES and not any(args[0] is drawn for drawn in self.drawn):
            self.seen.append(name)
        return function(*args, **(kwargs or {}))


def counted(trainer):
    """The trainer's steps but the first, with a list of what each read: [["tolist"], ...].

    The first may compute what is kept, e.g. prototypes.
    """
    steps, step = [], trainer.forward_backward

    def own_of_optimisers():                   # Adam keeps its step count on the CPU, also for parameters of a GPU
        return {id(value) for optim in trainer.optimisers.values() if optim is not None
                for state in optim.state.values() for name, value in state.items() if name == "step"}

    def first(batch):
        trainer.forward_backward = watched
        return step(batch)

    def watched(batch):
        steps.append([])
        with Functions(steps[-1]) as functions, Operators(
                steps[-1], lambda: own_of_optimisers() | {id(drawn) for drawn in functions.drawn}):
            return step(batch)

    trainer.forward_backward = first
    return steps


@pytest.fixture
def float16(monkeypatch):
    """A CPU computes in float16 too, slowly; trainers refuse it there."""
    monkeypatch.setattr("trainers.parts.devices.reading_is_free", lambda x: False)
    monkeypatch.setattr(_precision, "precision_on", lambda clip, asked: (asked, ""))


@pytest.mark.parametrize(("name", "precision"), [(name, "fp16") for name in METHODS] + [
    (name, precision) for name in list(METHODS)[::24] for precision in ("fp32", "bf16")])
def test_a_step_reads_once(name, precision, make_cfg, float16):
    """With the scaler of float16, which has most to ask for; without it the engine's own part is the same for all."""
    section = METHODS[name].section
    options = make_cfg(name).TRAINER[section] if section else {}
    precision = precision if "PREC" in options else "fp32"
    if issubclass(METHODS[name], AttackedTrainer) and not METHODS[name].half_towers and precision == "fp16":
        precision = "bf16"                                      # they scale no loss and refuse float16
    trainer = build_trainer(make_cfg(name, "TEST.NO_TEST", True, "OPTIM.MAX_EPOCH", 1, *(
        (f"TRAINER.{section}.PREC", precision) if "PREC" in options else ())))
    assert trainer.precision == precision
    assert trainer.mixed.scaler.enabled == (precision == "fp16" and trainer.half_towers)
    if trainer.mixed.scaler.enabled:
        trainer.mixed.scaler.scale = 128.0                      # so that steps are taken, and some left out
    for module in trainer.model.modules():
        for ends in ("eot", "eot_alone"):                       # they are kept on the CPU
            if isinstance(getattr(module, ends, None), torch.Tensor):
                setattr(module, ends, Known(getattr(module, ends).tolist()))
    steps = counted(trainer)
    trainer.train()
    assert steps or type(trainer).run_epoch is not TrainerX.run_epoch or not any(trainer.optimisers.values())
    assert all(reads == ["tolist"] for reads in steps), steps


def test_the_methods_are_seen():
    assert len(METHODS) >= 10


def test_dassls_own_update_reads_once_in_a_trainer_of_somebody_elses(make_cfg):
    trainer, read = build_trainer(make_cfg("VP")), []
    batch = next(iter(trainer.train_loader_x))
    loss = sum(trainer.loss(trainer.model(batch["img"]), batch).values())
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
