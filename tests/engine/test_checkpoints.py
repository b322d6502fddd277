"""Checkpoints: nothing in them runs, nothing is half-written, old ones are read, wrong ones are told."""
import os
import pickle

import pytest
import torch
from torch import nn

from dassl.optim import ConstantWarmupScheduler
from dassl.utils import (
    UserError,
    load_checkpoint,
    load_pretrained_weights,
    open_all_layers,
    open_specified_layers,
    resume_from_checkpoint,
    save_checkpoint,
)


class Malicious:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("legacy_format", [False, True])
def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path, legacy_format):
    path, marker = tmp_path / "bad.pth.tar", tmp_path / "it_ran"
    torch.save({"state_dict": {"w": torch.zeros(1)}, "scheduler": Malicious(marker)}, path,
               _use_new_zipfile_serialization=not legacy_format)
    with pytest.raises(UserError, match="cannot be read: .*mkdir"):
        load_checkpoint(str(path))
    assert not marker.exists()
    path.write_bytes(pickle.dumps(Malicious(marker), protocol=2))
    with pytest.raises(UserError):
        load_checkpoint(str(path))
    assert not marker.exists()


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.95])
def test_a_cut_file_is_told_as_such(tmp_path, keep):
    path = tmp_path / "cut.pth.tar"
    torch.save({"state_dict": {"w": torch.randn(400)}, "epoch": 1}, path)
    content = path.read_bytes()
    path.write_bytes(content[:int(keep * len(content)) if isinstance(keep, float) else keep])
    with pytest.raises(UserError, match="cut.pth.tar cannot be read"):
        load_checkpoint(str(path))


def test_no_file_is_told_with_its_path(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.pth"):
        load_checkpoint(str(tmp_path / "nothing.pth"))


@pytest.mark.parametrize("legacy_format", [False, True])
def test_an_old_checkpoint_with_a_scheduler_object_gives_its_tensors(tmp_path, legacy_format):
    """Dassl 0.6.3 pickled the schedule that follows the warm-up, with the optimiser in it."""
    weight = nn.Parameter(torch.randn(3))
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    scheduler = ConstantWarmupScheduler(optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5.0), 1, 1e-5)
    plain = {k: v for k, v in scheduler.__dict__.items() if k != "optimizer" and not callable(v)}
    plain["successor"] = torch.optim.lr_scheduler.StepLR(torch.optim.SGD([weight], lr=0.1), 3)
    path = tmp_path / "model.pth.tar-2"
    torch.save({"state_dict": {"w": weight.data}, "epoch": 2, "optimizer": optimizer.state_dict(),
                "scheduler": plain, "val_result": 91.5}, path, _use_new_zipfile_serialization=not legacy_format)
    state = load_checkpoint(str(path))
    assert torch.equal(state["state_dict"]["w"], weight.data)
    assert (state["epoch"], state["val_result"]) == (2, 91.5)
    assert state["optimizer"]["param_groups"][0]["momentum"] == 0.9


def test_a_failed_write_leaves_the_earlier_checkpoint_and_no_litter(tmp_path):
    save_checkpoint({"state_dict": {"w": torch.ones(1)}, "epoch": 1}, str(tmp_path))
    before = sorted(os.listdir(tmp_path))
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
        save_checkpoint({"state_dict": {"w": torch.ones(1)}, "epoch": 1, "what": lambda: 0}, str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == before == ["checkpoint", "model.pth.tar-1"]
    assert load_checkpoint(str(tmp_path / "model.pth.tar-1"))["state_dict"]["w"].item() == 1


def test_the_layout_is_dassls(tmp_path):
    state = {"state_dict": {"module.w": torch.ones(1)}, "epoch": 7}
    save_checkpoint(state, str(tmp_path / "model"), is_best=True)
    assert sorted(os.listdir(tmp_path / "model")) == ["checkpoint", "model-best.pth.tar", "model.pth.tar-7"]
    assert (tmp_path / "model" / "checkpoint").read_text() == "model.pth.tar-7\n"
    assert list(load_checkpoint(str(tmp_path / "model" / "model.pth.tar-7"))["state_dict"]) == ["w"]


def test_resuming_restores_model_optimiser_and_schedule(tmp_path):
    def build():
        model = nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        return model, optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 1)

    def step(model, optimizer, scheduler):
        optimizer.zero_grad()
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        scheduler.step()

    one = build()
    step(*one)
    save_checkpoint({"state_dict": one[0].state_dict(), "epoch": 1, "optimizer": one[1].state_dict(),
                     "scheduler": one[2].state_dict()}, str(tmp_path))
    other = build()
    assert resume_from_checkpoint(str(tmp_path), *other) == 1
    step(*one)
    step(*other)
    assert torch.equal(one[0].weight, other[0].weight) and one[2].get_last_lr() == other[2].get_last_lr()


def test_pretrained_weights_that_fit_are_taken_and_the_rest_is_named(tmp_path, caplog):
    caplog.set_level("INFO")
    path = tmp_path / "w.pth"
    torch.save({"state_dict": {"module.weight": torch.full((1, 2), 3.0), "bias": torch.ones(9)}}, path)
    model = nn.Linear(2, 1)
    bias = model.bias.item()
    load_pretrained_weights(model, str(path))
    assert model.weight.tolist() == [[3.0, 3.0]] and model.bias.item() == bias
    assert "Loaded 1 weights" in caplog.text and "left aside: bias" in caplog.text


def test_layers_open_by_name():
    model = nn.ModuleDict({"body": nn.Linear(1, 1), "head": nn.Linear(1, 1)})
    open_specified_layers(model, "head")
    assert [p.requires_grad for p in model.parameters()] == [False, False, True, True]
    assert (model["body"].training, model["head"].training) == (False, True)
    open_all_layers(model)
    assert all(p.requires_grad for p in model.parameters()) and model["body"].training
    with pytest.raises(ValueError, match="tail not among the model's layers: body, head"):
        open_specified_layers(model, ["tail"])
