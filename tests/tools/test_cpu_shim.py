"""CUDA calls of other people's code on a machine without CUDA: named with their line, or run on the CPU on request."""
import json
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from dassl.compat import cpu_shim
from dassl.compat.cpu_shim import cuda_of_others
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import UserError
from tools import predict, train

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without CUDA")
ROOT = Path(__file__).resolve().parents[2]
THEIRS = '''
import torch
from torch import nn
from torch.cuda.amp import GradScaler, autocast
from torch.nn import functional as F
from dassl.engine import TRAINER_REGISTRY, TrainerX
from dassl.optim import build_lr_scheduler, build_optimizer


@TRAINER_REGISTRY.register(force=True)
class CudaByHand(TrainerX):
    def build_model(self):
        self.model = nn.Linear(3 * 32 * 32, self.num_classes)
        self.model.cuda()                                             # line 14
        self.one, self.device = torch.ones(1, device="cuda:0"), torch.device("cuda")
        self.optim = build_optimizer(self.model, self.cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, self.cfg.OPTIM)
        self.register_model("model", self.model, self.optim, self.sched)
        self.scaler = GradScaler()

    def model_inference(self, input):
        return self.model(input.flatten(1).cuda())

    def forward_backward(self, batch):
        with autocast():
            output = self.model_inference(batch["img"]) * self.one
            loss = F.cross_entropy(output, batch["label"].to("cuda", non_blocking=True))
        self.optim.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optim)
        self.scaler.update()
        torch.cuda.synchronize()
        return {"loss": loss.item()}
'''


@pytest.fixture
def words(tmp_path):
    (tmp_path / "theirs.py").write_text(THEIRS)
    yield ["--plugin", str(tmp_path / "theirs.py"), "--trainer", "CudaByHand", "--root", str(tmp_path / "data"),
            "--seed", "1", "--output-dir", str(tmp_path / "run"), "--config-file",
            str(ROOT / "configs/trainers/CoOp/tiny.yaml"), "--dataset-config-file",
            str(ROOT / "configs/datasets/digits.yaml"), "DATASET.NUM_SHOTS", "1", "OPTIM.MAX_EPOCH", "2"]
    for name in ("CudaByHand", "AsksForWeights"):
        TRAINER_REGISTRY._obj_map.pop(name, None)


def test_without_the_flag_the_line_is_named_and_nothing_is_left(words, tmp_path, capsys):
    assert train.cli(words) == 2
    error = capsys.readouterr().err
    assert f"{tmp_path / 'theirs.py'}, line 14, asks for CUDA (self.model.cuda()" in error
    assert "--allow-cpu-shim" in error and "Traceback" not in error and not (tmp_path / "run").exists()


def test_a_call_while_a_plugin_is_imported_is_told_too(tmp_path, capsys):
    (tmp_path / "theirs.py").write_text("import torch\nONE = torch.ones(1).cuda()\n")
    words = ["--plugin", str(tmp_path / "theirs.py"), "--list"]
    assert train.cli(words) == 2 and "theirs.py, line 2, asks for CUDA" in capsys.readouterr().err
    assert train.cli([*words, "--allow-cpu-shim"]) == 0 and "CoOp" in capsys.readouterr().out


def test_what_clip_refuses_in_their_code_is_one_paragraph_too(words, tmp_path, capsys):
    theirs = "from clip import clip\n" + THEIRS.replace("self.model.cuda()", "clip._download(clip._MODELS['ViT-B/61'])")
    (tmp_path / "theirs.py").write_text(theirs.replace("CudaByHand", "AsksForWeights"))
    assert train.cli([word.replace("CudaByHand", "AsksForWeights") for word in words]) == 2
    error = capsys.readouterr().err
    assert "did you mean 'ViT-B/16'" in error and "Traceback" not in error and not (tmp_path / "run").exists()


@pytest.mark.filterwarnings("ignore:.*torch.cuda.amp:FutureWarning")
def test_with_the_flag_it_trains_and_says_so_once_in_log_and_results(words, tmp_path):
    assert train.cli(["--allow-cpu-shim", *words]) == 0
    log = (tmp_path / "run" / "log.txt").read_text()
    assert log.count("This machine has no CUDA: calls for it run on the CPU (--allow-cpu-shim)") == 1
    record = json.loads((tmp_path / "run" / "results.json").read_text())
    assert record["cuda_calls"] == "run on the CPU (--allow-cpu-shim)" and record["device"] == "cpu"
    assert not cpu_shim.is_on()


@pytest.mark.filterwarnings("ignore:.*torch.cuda.amp:FutureWarning")
def test_such_a_run_predicts_with_the_flag_and_its_keys_of_another_file_are_known(words, tmp_path, capsys):
    (tmp_path / "train.py").write_text("from yacs.config import CfgNode as CN\ndef extend_cfg(cfg):\n"
                                       "    cfg.TRAINER.BYHAND = CN({'SCALE': 1.0})\n")
    used = THEIRS.replace("* self.one", "* self.cfg.TRAINER.BYHAND.SCALE").replace(
        "self.model.cuda()", "self.model.cuda(); self.cfg.TRAINER.BYHAND.SCALE")
    (tmp_path / "theirs.py").write_text(used)
    assert train.cli(["--allow-cpu-shim", "--extend-cfg", str(tmp_path / "train.py"), *words]) == 0
    run = ["--run", str(tmp_path / "run"), "--plugin", words[1], str(next(tmp_path.glob("data/*/one/*.png")))]
    capsys.readouterr()
    assert predict.cli(run) == 2 and "theirs.py, line 14, asks for CUDA" in capsys.readouterr().err
    assert predict.cli([*run, "--allow-cpu-shim"]) == 0 and "%" in capsys.readouterr().out


CALLS = {
    "Tensor.cuda": lambda: torch.ones(2).cuda(), "Module.cuda": lambda: nn.Linear(1, 1).cuda(0).weight,
    "Tensor.to": lambda: torch.ones(2).to("cuda:1"), "Module.to": lambda: nn.Linear(1, 1).to("cuda").weight,
    "number": lambda: torch.ones(2).to(0), "named": lambda: torch.ones(2).to(dtype=torch.half, device="cuda"),
    "torch.device": lambda: torch.ones(2).to(torch.device("cuda", 0)), "there": lambda: torch.eye(2, device="cuda"),
    "like": lambda: torch.zeros_like(torch.ones(2), device="cuda"),
    "layer": lambda: nn.Linear(1, 1, device="cuda").bias,
    "type": lambda: torch.ones(2).type("torch.cuda.FloatTensor"), "class": lambda: torch.cuda.FloatTensor(2),
    "pinned": lambda: torch.ones(2).pin_memory(), "data": lambda: torch.tensor([1], device="cuda"),
}


@pytest.mark.filterwarnings("ignore:.*DtypeTensor constructors")
@pytest.mark.parametrize("name", CALLS)
def test_a_call_gives_a_tensor_of_the_cpu_inside_and_fails_outside(name):
    with cuda_of_others(True):
        assert CALLS[name]().device.type == "cpu"
    with pytest.raises(UserError, match="test_cpu_shim.py, line .*--allow-cpu-shim"), cuda_of_others(False):
        CALLS[name]()
    with pytest.raises((RuntimeError, AssertionError, TypeError)):
        CALLS[name]()


def test_values_types_and_gradients_are_those_of_the_cpu():
    x = torch.arange(3.0, requires_grad=True)
    with cuda_of_others(True):
        (x.cuda() * torch.tensor([1.0, 2, 3], device="cuda")).sum().backward()
        half = x.detach().to("cuda", torch.half)
        torch.cuda.synchronize(), torch.cuda.empty_cache(), torch.cuda.set_device(0)
        with torch.cuda.device(0):
            assert torch.cuda.current_device() == 0 and not torch.cuda.is_available()
    assert x.grad.tolist() == [1, 2, 3] and half.dtype == torch.half and half.tolist() == [0, 1, 2]


def test_autocast_and_scaler_rest_without_a_word():
    with cuda_of_others(True), warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", ".*CUDA is not available")
        scaler, layer = torch.amp.GradScaler("cuda"), nn.Linear(2, 1).cuda()
        with torch.autocast("cuda", dtype=torch.float16):
            out = layer(torch.ones(1, 2).cuda())
        assert out.dtype == torch.float32 and torch.equal(scaler.scale(out), out)


def test_a_file_from_a_gpu_is_loaded_on_the_cpu(tmp_path):
    import zipfile

    torch.save({"w": torch.arange(3)}, tmp_path / "cpu.pt")
    with zipfile.ZipFile(tmp_path / "cpu.pt") as old, zipfile.ZipFile(tmp_path / "gpu.pt", "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, content.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0"))
    with pytest.raises(UserError, match="asks for CUDA"), cuda_of_others(False):
        torch.load(tmp_path / "gpu.pt", weights_only=True)
    with cuda_of_others(True):
        for location in ({}, {"map_location": "cuda"}, {"map_location": torch.device("cuda:0")}):
            assert torch.load(tmp_path / "gpu.pt", weights_only=True, **location)["w"].tolist() == [0, 1, 2]


def test_everything_is_as_before_afterwards_also_after_an_error():
    def state():
        return [torch.load, torch.cuda.device, torch.cuda.FloatTensor, torch.cuda.synchronize, torch.cuda.set_device,
                torch.overrides._get_current_function_mode_stack()]

    before = state()
    with pytest.raises(ZeroDivisionError), cuda_of_others(True):
        assert state() != before and cpu_shim.is_on()
        1 / 0  # noqa: B018
    assert state() == before and not cpu_shim.is_on()
    with cuda_of_others(False):
        assert state() == before


def test_a_call_that_is_not_covered_is_told_as_that():
    with pytest.raises(UserError, match=r"get_device_properties.*not among those that --allow-cpu-shim"), \
            cuda_of_others(True):
        torch.cuda.get_device_properties(0)


def test_where_there_is_cuda_nothing_is_changed(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    load = torch.load
    with cuda_of_others(True):
        assert torch.load is load and not cpu_shim.is_on()
        assert torch.overrides._get_current_function_mode_stack() == []
    with pytest.raises(RuntimeError, match="No CUDA GPUs"), cuda_of_others(False):
        raise RuntimeError("No CUDA GPUs are available")


def test_other_errors_pass_as_they_are():
    for error in (RuntimeError("shapes"), TypeError("x"), KeyError("cuda")):
        with pytest.raises(type(error)), cuda_of_others(False):
            raise error
