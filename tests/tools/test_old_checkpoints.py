"""Checkpoints of any PyTorch and NumPy version are read, and nothing that they name is run."""

import numpy as np
import pytest
import torch
from old_files import Call, Name, tensor, write_legacy, write_tar, write_zip

from dassl.compat.restricted_pickle import Inert
from dassl.utils import UserError, load_checkpoint

CTX = np.random.RandomState(0).randn(4, 6).astype(np.float32)
FORMATS = {"zip": write_zip, "legacy": write_legacy}


def state(**more):
    weights = Call("collections.OrderedDict")
    weights.args = ([["module.ctx", tensor(CTX)]],)
    return {"state_dict": weights, "epoch": 50, "val_result": None, "optimizer": None, "scheduler": None, **more}


def loaded(path, write, value, **more):
    write(path, value, **more)
    return load_checkpoint(str(path))


@pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("location", ["cpu", "cuda:0", "cuda:3"])
def test_tensors_come_from_either_format_and_from_any_device(tmp_path, write, location):
    found = loaded(tmp_path / "x", write, state(half=tensor(CTX.astype(np.float16)), count=tensor(np.arange(3))),
                   location=location)
    assert torch.equal(found["state_dict"]["module.ctx"], torch.tensor(CTX)) and found["epoch"] == 50
    assert found["half"].dtype == torch.float16 and found["count"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("value", [
    tensor(CTX, "torch._utils._rebuild_tensor"),
    Call("torch._utils._rebuild_parameter", tensor(CTX), True, Call("collections.OrderedDict")),
    Call("torch._utils._rebuild_parameter_with_state", tensor(CTX), True, Call("collections.OrderedDict"), {"a": 1}),
    Call("torch._tensor._rebuild_from_type_v2", Name("torch._utils._rebuild_tensor_v2"), Name("torch.Tensor"),
         tensor(CTX).args, {"note": "of a subclass"}),
], ids=["before 0.4", "parameter", "parameter with state", "tensor with attributes"])
def test_every_way_of_writing_a_tensor_is_understood(tmp_path, write, value):
    found = loaded(tmp_path / "x", write, state(tensor=value, scheduler=Call("dassl.optim.Schedule")))["tensor"]
    assert torch.equal(found.detach(), torch.tensor(CTX))


@pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("numpy", ["core", "_core"])
@pytest.mark.filterwarnings("error")
def test_numbers_and_arrays_of_numpy_1_and_2_are_plain_data(tmp_path, write, numpy):
    letter = Call("_codecs.encode", "b", "latin1")
    empty = Call(f"numpy.{numpy}.multiarray._reconstruct", Name("numpy.ndarray"), (0,), letter)
    empty.state = (1, (3,), Call("numpy.dtype", "i8", False, True), False,
                   Call("_codecs.encode", np.arange(3).tobytes().decode("latin1"), "latin1"))
    value = Call(f"numpy.{numpy}.multiarray.scalar", Call("numpy.dtype", "f8", False, True),
                 Call("_codecs.encode", np.float64(91.5).tobytes().decode("latin1"), "latin1"))
    found = loaded(tmp_path / "x", write, state(val_result=value, draws=empty))
    assert found["val_result"] == 91.5 and found["draws"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("name", [
    "dassl.optim.lr_scheduler.ConstantWarmupScheduler", "torch.optim.lr_scheduler.CosineAnnealingLR",
    "torch.optim.sgd.SGD", "torch.cuda.amp.grad_scaler.GradScaler", "yacs.config.CfgNode", "argparse.Namespace"])
def test_objects_without_use_here_are_left_unread(tmp_path, write, name):
    thing = Call(name, state={"last_epoch": 3, "inner": Call("collections.defaultdict", Name("__builtin__.dict"))})
    found = loaded(tmp_path / "x", write, state(scheduler={"successor": thing, "last_epoch": 3}))
    assert isinstance(found["scheduler"]["successor"], Inert) and found["scheduler"]["last_epoch"] == 3
    assert torch.equal(found["state_dict"]["module.ctx"], torch.tensor(CTX))


def test_the_tar_files_of_2017_are_read(tmp_path):
    arrays = [CTX, np.arange(4)]
    write_tar(tmp_path / "x.pth.tar", arrays, lambda t: {"state_dict": {"ctx": t[0], "n": t[1]}, "epoch": 3})
    found = load_checkpoint(str(tmp_path / "x.pth.tar"))
    assert torch.equal(found["state_dict"]["ctx"], torch.tensor(CTX))
    assert found["state_dict"]["n"].tolist() == [0, 1, 2, 3] and found["epoch"] == 3
    write_tar(tmp_path / "evil", arrays, lambda t: {"x": Call("os.mkdir", str(tmp_path / "ran"))})
    with pytest.raises(UserError, match="asks for os.mkdir"):
        load_checkpoint(str(tmp_path / "evil"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("call", [
    lambda p: Call("os.system", f"mkdir {p}"), lambda p: Call("posix.mkdir", p), lambda p: Call("builtins.exec", p),
    lambda p: Call("__builtin__.eval", f"open('{p}','w')"), lambda p: Call("pathlib.Path.touch", p),
    lambda p: Call("torch._tensor._rebuild_from_type_v2", Name("os.mkdir"), Name("torch.Tensor"), (p,), {}),
    lambda p: Call("torch.jit.load", p), lambda p: Call("torch.storage._load_from_bytes", b""),
    lambda p: Call("torch.FloatStorage.from_file", p, True, 8), lambda p: Call("numpy.core.multiarray.fromfile", p),
    lambda p: Call("numpy.memmap", p), lambda p: Call("functools.partial", Name("os.mkdir"), p),
    lambda p: Call("torch.nn.modules.linear.Linear", 2, 2), lambda p: Call("somebody.trainers.Model"),
    lambda p: Call("importlib.import_module", "this"), lambda p: Call("operator.methodcaller", "mkdir")])
def test_whatever_else_a_file_asks_for_is_refused_by_name_and_not_run(tmp_path, write, call):
    ran = tmp_path / "ran"
    thing = call(str(ran))
    write(tmp_path / "x", state(scheduler=thing))
    names = [part.name for part in (thing.what, *thing.args) if isinstance(part, Name)]
    with pytest.raises(UserError, match=f"x cannot be read: .*({'|'.join(names)})"):
        load_checkpoint(str(tmp_path / "x"))
    assert not ran.exists()


def test_a_torchscript_program_is_refused_before_anything_of_it_runs(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "x", "w") as archive:
        archive.writestr("x/constants.pkl", b"")
        archive.writestr("x/data.pkl", b"")
    with pytest.raises(UserError, match="it is a TorchScript program, not a checkpoint"):
        load_checkpoint(str(tmp_path / "x"))
