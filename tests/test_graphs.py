"""CUDA graphs: a recorded step does what the plain one does, tried on a CPU with a tape in the graph's place."""
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dassl.engine import build_trainer
from dassl.utils import UserError
from trainers import _graphs
from trainers._base import PromptTrainer

RECORDABLE = ["CoOp", "CoCoOp", "VPT", "DAPT", "VP", "AR", "AttrVR", "DVPcse", "DVPcls"]
READS_A_NUMBER = {"_local_scalar_dense", "nonzero", "equal", "bincount", "_unique2", "masked_select", "lift_fresh"}


class Tape(TorchDispatchMode):
    """What a CUDA graph does: keeps every operation with its very tensors, and repeats it on them."""

    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket.__name__ in READS_A_NUMBER:
            raise RuntimeError(f"operation not permitted when stream is capturing: {function}")
        outputs = function(*args, **(kwargs or {}))
        self.operations.append((function, args, kwargs or {}, outputs))
        return outputs

    @torch.no_grad()
    def replay(self):
        for function, args, kwargs, outputs in self.operations:
            for old, new in zip(tree_leaves(outputs), tree_leaves(function(*args, **kwargs)), strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


@pytest.fixture
def tapes(monkeypatch):
    """The tapes that were recorded, in place of CUDA graphs, on trainers that take the CPU for a GPU."""
    made = []

    def record(compute):
        for _ in range(_graphs._WARM_UP):
            compute()
        made.append(Tape())
        with made[-1]:
            outputs = compute()
        return made[-1].replay, outputs

    monkeypatch.setattr(_graphs, "record", record)
    monkeypatch.setattr(PromptTrainer, "gradients", property(
        lambda self: self.__dict__.setdefault("_recorded", _graphs.RecordedStep(
            self._gradients, self.model.prompt_learner.parameters()))))
    return made


def learned_and_losses(cfg, steps=4):
    trainer = build_trainer(cfg)
    trainer.before_train()
    trainer.set_model_mode("train")
    trainer.num_batches, trainer.epoch, losses = 100, 1, []
    batches = list(trainer.train_loader_x)
    for number in range(steps):
        trainer.batch_idx = number
        losses.append(trainer.forward_backward(batches[number % len(batches)])["loss"])
    return trainer, losses


@pytest.mark.parametrize("name", RECORDABLE)
def test_a_recorded_step_reads_no_number_and_learns_the_same(name, make_cfg, tmp_path, tapes, monkeypatch):
    options = ("OPTIM.WARMUP_EPOCH", 0, "OPTIM.LR", 0.01)
    recorded, losses = learned_and_losses(make_cfg(name, *options, output=tmp_path / "recorded"))
    assert len(tapes) == 1 and len(tapes[0].operations) > 50
    monkeypatch.undo()
    plain, expected = learned_and_losses(make_cfg(name, *options, output=tmp_path / "plain"))
    assert losses == expected and len(set(losses)) > 1
    for key, value in plain.model.prompt_learner.state_dict().items():
        assert torch.equal(recorded.model.prompt_learner.state_dict()[key], value), key
    if name.startswith("DVP"):
        assert torch.equal(recorded.bank.mapping.counts, plain.bank.mapping.counts)


@pytest.mark.parametrize("options", [
    ("CoOp", "TRAINER.COOP.CSC", True), ("CoOp", "TRAINER.COOP.CLASS_TOKEN_POSITION", "front"),
    ("CoOp", "TRAIN.MAX_TOKENS", 20), ("DAPT", "TRAIN.MAX_TOKENS", 20)])
def test_contexts_of_classes_and_text_in_pieces_can_be_recorded_too(options, make_cfg, tmp_path, tapes, monkeypatch):
    opts = (*options[1:], "OPTIM.WARMUP_EPOCH", 0, "OPTIM.LR", 0.01)
    _, losses = learned_and_losses(make_cfg(options[0], *opts, output=tmp_path / "recorded"))
    monkeypatch.undo()
    assert losses == learned_and_losses(make_cfg(options[0], *opts, output=tmp_path / "plain"))[1]


def test_a_smaller_batch_has_a_recording_of_its_own(tapes):
    weight = torch.nn.Parameter(torch.tensor([2.0]))

    def compute(x):
        weight.grad = None
        loss = (weight * x).sum()
        loss.backward()
        return loss

    step = _graphs.RecordedStep(compute, [weight])
    for values in ([1.0, 2.0], [3.0], [4.0, 5.0], [6.0]):
        assert step(torch.tensor(values)).item() == 2 * sum(values)
        assert weight.grad.item() == sum(values)
    assert len(tapes) == 2


def test_a_step_that_reads_a_number_cannot_be_recorded(tapes):
    weight = torch.nn.Parameter(torch.ones(1))
    with pytest.raises(RuntimeError, match="not permitted when stream is capturing"):
        _graphs.RecordedStep(lambda x: weight * x.item(), [weight])(torch.ones(()))


def test_without_a_gpu_the_run_goes_on_plainly_and_says_so(make_cfg, caplog):
    trainer = build_trainer(make_cfg("CoOp", "TRAIN.CUDA_GRAPHS", True, "USE_CUDA", False))
    assert trainer.gradients == trainer._gradients
    assert "TRAIN.CUDA_GRAPHS records the steps of a GPU; this run is on the cpu" in caplog.text


def test_a_trainer_that_does_not_say_it_is_recordable_is_refused(make_cfg, monkeypatch):
    trainer = build_trainer(make_cfg("CoOp", "TRAIN.CUDA_GRAPHS", True))
    monkeypatch.setattr(type(trainer), "recordable", False)
    trainer.device = torch.device("cuda")
    with pytest.raises(UserError, match="CoOp does not. Set TRAIN.CUDA_GRAPHS False"):
        trainer.gradients  # noqa: B018


@pytest.mark.gpu
@pytest.mark.parametrize("name", RECORDABLE)
def test_on_a_gpu_a_recorded_training_learns_what_the_plain_one_learns(name, make_cfg, tmp_path):
    learned = []
    for recorded in (False, True):
        cfg = make_cfg(name, "TRAIN.CUDA_GRAPHS", recorded, "OPTIM.WARMUP_EPOCH", 0, output=tmp_path / str(recorded))
        trainer, losses = learned_and_losses(cfg, steps=6)
        learned.append([torch.tensor(losses), *trainer.model.prompt_learner.state_dict().values()])
    for plain, other in zip(*learned, strict=True):
        torch.testing.assert_close(other, plain, rtol=1e-3, atol=1e-5)
