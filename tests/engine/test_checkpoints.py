"""Checkpoints: Dassl's layout, whole or not at all; old ones are read, wrong ones are reported."""
import collections
import os
import sys
import types

import pytest
import torch
from torch import nn

from dassl.engine import build_trainer
from dassl.utils import (
    UserError,
    load_checkpoint,
    load_pretrained_weights,
    open_all_layers,
    open_specified_layers,
    resume_from_checkpoint,
    save_checkpoint,
)


def state_of(model, **more):
    return {"state_dict": model.state_dict(), "epoch": 3, "optimizer": None, "scheduler": None, **more}


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    model = nn.Linear(2, 2)
    save_checkpoint(state_of(model), str(tmp_path))
    before = (tmp_path / "model.pth.tar-3").read_bytes()

    def full_disk(obj, file):
        file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(state_of(model), str(tmp_path))
    assert {p.name for p in tmp_path.iterdir()} == {"model.pth.tar-3", "checkpoint"}
    assert (tmp_path / "model.pth.tar-3").read_bytes() == before


def test_the_layout_is_dassls(tmp_path):
    state = {"state_dict": {"module.w": torch.ones(1)}, "epoch": 7}
    save_checkpoint(state, str(tmp_path / "model"), is_best=True)
    assert sorted(os.listdir(tmp_path / "model")) == ["checkpoint", "model-best.pth.tar", "model.pth.tar-7"]
    assert (tmp_path / "model" / "checkpoint").read_text() == "model.pth.tar-7\n"
    for name in ("model.pth.tar-7", "model-best.pth.tar"):          # without data parallel's prefix
        assert list(load_checkpoint(str(tmp_path / "model" / name))["state_dict"]) == ["w"]


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
    torch.save({"state_dict": {"module.weight": torch.full((1, 2), 3.0), "bias": torch.ones(9),
                               "extra": torch.zeros(1)}}, path)
    model = nn.Linear(2, 1)
    bias = model.bias.item()
    load_pretrained_weights(model, str(path))
    assert model.weight.tolist() == [[3.0, 3.0]] and model.bias.item() == bias
    assert "Loaded 1 weights" in caplog.text and "left aside: bias, extra" in caplog.text


@pytest.mark.parametrize("content", [{"state_dict": torch.zeros(1)}, [1], {"weight": "text"},
                                     {"weight": torch.zeros(1, 2, dtype=torch.complex64)}])
def test_what_is_no_row_of_weights_is_not_taken_as_pretrained(content, tmp_path):
    torch.save(content, tmp_path / "w.pth")
    model = nn.Linear(2, 1)
    before = model.weight.detach().clone()
    assert load_pretrained_weights(model, str(tmp_path / "w.pth")) is False and torch.equal(model.weight, before)


def test_an_old_dassl_checkpoint_with_a_scheduler_object_loads(tmp_path):
    """Dassl's warm-up schedule pickled its successor whole, and through it the optimiser and its parameters."""
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    for successor in (
        torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 9.0),
        torch.optim.lr_scheduler.MultiStepLR(optimizer, [3]),
        torch.optim.lr_scheduler.StepLR(optimizer, 2),
    ):
        successor.step()
        successor.__dict__.pop("_is_initial", None)
        old = {"successor": successor, "warmup_epoch": 1, "cons_lr": 1e-5, "base_lrs": [0.1], "last_epoch": 1}
        state = {**state_of(model), "optimizer": optimizer.state_dict(), "scheduler": old}
        for form in ({}, {"_use_new_zipfile_serialization": False}):
            torch.save(state, tmp_path / "old", **form)
            loaded = load_checkpoint(str(tmp_path / "old"))
            assert all(torch.equal(v, model.state_dict()[k]) for k, v in loaded["state_dict"].items())
            assert loaded["epoch"] == 3
            assert loaded["optimizer"]["param_groups"] == optimizer.state_dict()["param_groups"]


class _StandIn:
    """Pickled under the name of a class of Dassl's that is not importable here."""


def test_classes_of_other_dassl_versions_become_inert(tmp_path):
    _StandIn.__module__, _StandIn.__qualname__ = "dassl.optim.lr_scheduler_of_old", "OldScheduler"
    sys.modules["dassl.optim.lr_scheduler_of_old"] = module = types.ModuleType("dassl.optim.lr_scheduler_of_old")
    module.OldScheduler = _StandIn
    try:
        stand_in = _StandIn()
        stand_in.history = collections.defaultdict(dict, {1: {"a": 2}})
        torch.save({"state_dict": {"x": torch.ones(2)}, "epoch": 1, "scheduler": stand_in}, tmp_path / "old")
    finally:
        del sys.modules["dassl.optim.lr_scheduler_of_old"]
    loaded = load_checkpoint(str(tmp_path / "old"))
    assert torch.equal(loaded["state_dict"]["x"], torch.ones(2))


def test_damaged_files_are_user_errors_that_name_the_file(tmp_path):
    torch.save(state_of(nn.Linear(20, 20)), tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    damaged = {"empty": b"", "text": b"404: Not Found\n", "pickle": b"\x80\x04}\x94\x8c\x01a",
               "zip": b"PK\x03\x04broken", **{f"cut{n}": whole[:len(whole) * n // 20] for n in range(1, 20, 3)}}
    for name, content in damaged.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name} cannot be read"):
            load_checkpoint(str(tmp_path / name))


def test_every_flipped_byte_gives_the_content_an_error_or_other_numbers_but_no_crash(tmp_path):
    torch.save({"state_dict": {"weight": torch.arange(4.0)}, "epoch": 1}, tmp_path / "whole")
    whole = bytearray((tmp_path / "whole").read_bytes())
    for at in range(0, len(whole), 13):
        flipped = bytearray(whole)
        flipped[at] ^= 0xFF
        (tmp_path / "flipped").write_bytes(flipped)
        try:
            load_checkpoint(str(tmp_path / "flipped"))
        except UserError:
            continue


def test_a_checkpoint_that_is_not_there_or_not_of_this_model_is_named(engine_cfg, tmp_path):
    trainer = build_trainer(engine_cfg())
    with pytest.raises(UserError, match="nowhere.*linear"):
        trainer.load_model(str(tmp_path / "nowhere"), epoch=1)
    save_checkpoint(state_of(nn.Linear(5, 5)), str(tmp_path / "other" / "linear"))
    with pytest.raises(UserError, match="other.*does not fit"):
        trainer.load_model(str(tmp_path / "other"), epoch=3)
    torch.save([1, 2], tmp_path / "other" / "linear" / "model.pth.tar-9")
    with pytest.raises(UserError, match="no state_dict"):
        trainer.load_model(str(tmp_path / "other"), epoch=9)
    with pytest.raises(FileNotFoundError, match="nothing.pth"):
        load_checkpoint(str(tmp_path / "nothing.pth"))


def test_layers_open_by_name():
    model = nn.ModuleDict({"body": nn.Linear(1, 1), "head": nn.Linear(1, 1)})
    open_specified_layers(model, "head")
    assert [p.requires_grad for p in model.parameters()] == [False, False, True, True]
    assert (model["body"].training, model["head"].training) == (False, True)
    open_all_layers(model)
    assert all(p.requires_grad for p in model.parameters()) and model["body"].training
    with pytest.raises(ValueError, match="tail not among the model's layers: body, head"):
        open_specified_layers(model, ["tail"])
