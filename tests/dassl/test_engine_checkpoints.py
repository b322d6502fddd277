"""Checkpoints: Dassl's layout, whole or not at all, and nothing in a file is ever executed."""

import collections
import copyreg
import os
import pickle

import pytest
import torch
from torch import nn

from dassl.engine import build_trainer
from dassl.utils import UserError, load_checkpoint, load_pretrained_weights, resume_from_checkpoint, save_checkpoint


def state_of(model, epoch=3, **more):
    return {
        "state_dict": model.state_dict(),
        "epoch": epoch,
        "optimizer": None,
        "scheduler": None,
        "val_result": 1.5,
        **more,
    }


def test_files_and_keys_are_where_dassl_puts_them(engine_cfg, tmp_path):
    build_trainer(engine_cfg("TRAIN.CHECKPOINT_FREQ", 2, "TEST.FINAL_MODEL", "best_val")).train()
    folder = tmp_path / "run" / "model"
    assert {p.name for p in folder.iterdir()} == {
        "checkpoint",
        "model.pth.tar-2",
        "model.pth.tar-4",
        "model-best.pth.tar",
    }
    assert (folder / "checkpoint").read_text() == "model.pth.tar-4\n"
    saved = torch.load(folder / "model.pth.tar-4", weights_only=True)
    assert {"state_dict", "epoch", "optimizer", "scheduler", "val_result"} <= set(saved) and saved["epoch"] == 4
    best = torch.load(folder / "model-best.pth.tar", weights_only=True)
    assert 0 <= best["val_result"] <= 100


def test_only_the_last_epoch_is_saved_by_default(engine_cfg, tmp_path):
    build_trainer(engine_cfg()).train()
    assert {p.name for p in (tmp_path / "run" / "model").iterdir()} == {"checkpoint", "model.pth.tar-4"}


def test_a_loaded_model_scores_as_the_trained_one(engine_cfg, tmp_path):
    trained = build_trainer(engine_cfg())
    trained.train()
    loaded = build_trainer(engine_cfg("SEED", 2, output="other"))
    loaded.load_model(str(tmp_path / "run"), epoch=4)
    images = next(iter(trained.test_loader))["img"]
    for trainer in (trained, loaded):
        trainer.set_model_mode("eval")
    assert torch.equal(trained.model_inference(images), loaded.model_inference(images))


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


def test_save_checkpoint_strips_data_parallels_prefix_and_keeps_the_best(tmp_path):
    model = nn.Linear(2, 2)
    wrapped = {f"module.{k}": v for k, v in model.state_dict().items()}
    save_checkpoint({**state_of(model), "state_dict": wrapped}, str(tmp_path), is_best=True)
    for name in ("model.pth.tar-3", "model-best.pth.tar"):
        assert set(load_checkpoint(str(tmp_path / name))["state_dict"]) == {"weight", "bias"}


class _Bomb:
    """Its unpickling would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("where", ["scheduler", "epoch", "state_dict"])
@pytest.mark.parametrize("form", [{}, {"_use_new_zipfile_serialization": False}], ids=["zip", "legacy"])
def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path, where, form):
    state = state_of(nn.Linear(2, 2))
    state[where] = _Bomb(tmp_path / "boom")
    torch.save(state, tmp_path / "evil", **form)
    with pytest.raises(UserError, match="evil.*system"):
        load_checkpoint(str(tmp_path / "evil"))
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize(
    "module, name",
    [
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("torch.serialization", "load"),
        ("torch.storage", "_load_from_bytes"),
        ("os", "system"),
        ("torch.hub", "load"),
        ("torch.optim.lr_scheduler", "sys.exit"),
        ("dassl.utils.tools", "os.system"),
        ("numpy", "load"),
        ("subprocess", "Popen"),
        ("torch._utils", "sys.exit"),
    ],
)
def test_no_path_leads_from_a_checkpoint_to_a_function(tmp_path, module, name):
    """Names behind a dot or in an allowed module must not resolve to anything callable of their own."""
    body = b"\x80\x04c" + f"{module}\n{name}\n".encode() + b"\x8c\x04boom\x85R."
    (tmp_path / "evil").write_bytes(body)
    torch.save({"x": 1}, tmp_path / "zip")
    import zipfile

    with zipfile.ZipFile(tmp_path / "zip") as source, zipfile.ZipFile(tmp_path / "evil.zip", "w") as target:
        for item in source.namelist():
            target.writestr(item, body if item.endswith("data.pkl") else source.read(item))
    for file in ("evil", "evil.zip"):
        try:
            loaded = load_checkpoint(str(tmp_path / file))
        except UserError:
            continue
        assert type(loaded).__name__ == "Inert"


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
            assert (
                loaded["epoch"] == 3 and loaded["optimizer"]["param_groups"] == optimizer.state_dict()["param_groups"]
            )


class _StandIn:
    """Pickled under the name of a class of Dassl's that is not importable here."""


def test_classes_of_other_dassl_versions_become_inert(tmp_path):
    _StandIn.__module__, _StandIn.__qualname__ = "dassl.optim.lr_scheduler_of_old", "OldScheduler"
    import sys
    import types

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
    damaged = {
        "empty": b"",
        "text": b"404: Not Found\n",
        "pickle": pickle.dumps({"a": 1})[:7],
        "zip": b"PK\x03\x04broken",
        **{f"cut{n}": whole[: len(whole) * n // 7] for n in range(1, 7)},
    }
    for name, content in damaged.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(UserError, match=name):
            load_checkpoint(str(path))


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
    with pytest.raises(UserError, match="nowhere.*model"):
        trainer.load_model(str(tmp_path / "nowhere"), epoch=1)
    save_checkpoint(state_of(nn.Linear(5, 5)), str(tmp_path / "other" / "model"))
    with pytest.raises(UserError, match="other.*does not fit"):
        trainer.load_model(str(tmp_path / "other"), epoch=3)
    torch.save([1, 2], tmp_path / "other" / "model" / "model.pth.tar-9")
    with pytest.raises(UserError, match="no state_dict"):
        trainer.load_model(str(tmp_path / "other"), epoch=9)
    with pytest.raises(FileNotFoundError):
        load_checkpoint(str(tmp_path / "nowhere"))


def test_resume_from_checkpoint_restores_model_optimiser_and_epoch(tmp_path):
    model, other = nn.Linear(2, 2), nn.Linear(2, 2)
    optimizers = [torch.optim.SGD(m.parameters(), lr=r, momentum=0.9) for m, r in ((model, 0.3), (other, 0.1))]
    save_checkpoint({**state_of(model), "optimizer": optimizers[0].state_dict()}, str(tmp_path))
    assert resume_from_checkpoint(str(tmp_path), other, optimizers[1]) == 3
    assert torch.equal(model.weight, other.weight) and optimizers[1].param_groups[0]["lr"] == 0.3


def test_pretrained_weights_copy_what_fits_and_name_the_rest(tmp_path, caplog):
    source, target = nn.Linear(2, 2), nn.Linear(2, 2)
    torch.save(
        {"state_dict": {"module.weight": source.weight.detach(), "bias": torch.zeros(9), "extra": torch.zeros(1)}},
        tmp_path / "w",
    )
    bias = target.bias.detach().clone()
    with caplog.at_level("INFO"):
        load_pretrained_weights(target, str(tmp_path / "w"))
    assert torch.equal(source.weight, target.weight) and torch.equal(bias, target.bias)
    assert "bias, extra" in caplog.text


def test_inert_stand_ins_run_no_hook_of_the_class_they_replace():
    from dassl.utils.restricted_pickle import Inert

    assert copyreg.__newobj__(Inert).__setstate__({"lambda": 1}) is None
