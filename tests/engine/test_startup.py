"""What commands import before they need it: lists of modules, because times differ between machines.

One process goes through all stages, each with what has been imported so far: every Python of its own would import
PyTorch again.
"""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SLOW = {"torchvision", "sklearn", "scipy", "matplotlib", "open_clip", "timm", "pandas", "transformers", "IPython"}
VERY_SLOW = SLOW | {"torch", "numpy", "PIL", "tensorboard", "datasets", "trainers", "clip"}
STAGES = """
import contextlib, io, json, os, random, runpy, sys, warnings
found = {}

def at(stage):
    found[stage] = sorted({name.partition(".")[0] for name in sys.modules} | {"torch._dynamo"} & set(sys.modules))

def command(name, *words):
    sys.argv = [f"tools/{name}.py", *words]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        runpy.run_path(sys.argv[0], run_name="__main__")

def states():
    return [torch.get_rng_state().tolist(), random.getstate(), numpy.random.get_state()[1].tolist()]

for name in "train sweep table bench data describe plot checkpoint new_trainer predict".split():
    command(name, "--help")
at("help")
with warnings.catch_warnings():
    warnings.simplefilter("error")
    warnings.simplefilter("ignore", ResourceWarning)                # PyTorch 2.5 leaves a folder to the exit
    import clip.simple_tokenizer
    clip.simple_tokenizer.SimpleTokenizer()
    at("clip")
    import dassl.engine, dassl.modeling, dassl.metrics
    at("engine")
import numpy, torch
before = states()
command("train", "--list")
at("list")

def forbidden(*_):
    raise AssertionError("asked for a GPU")

asked = [(torch._C, "_cuda_init"), (torch._C, "_cuda_getDeviceCount"), (torch.cuda, "is_available"),
         (torch.cuda, "device_count")]
asked = [(where, name, getattr(where, name, None)) for where, name in asked]
for where, name, _ in asked:
    setattr(where, name, forbidden)
import torch._dynamo, torchvision                                   # an optimiser's first step imports both
if not os.fork():
    for where, name, function in asked:
        setattr(where, name, function)
    command("train", *json.loads(os.environ["RUN"]))
    at("run")
    with open(os.environ["RUN_FOUND"], "w") as file:
        json.dump(found["run"], file)
    os._exit(0)
os.wait()
from tools.sweeping import warm
warm.import_everything()
at("warm")
found["warm changes"] = [name for name, changed in dict(
    streams=states() != before, gpu=torch.cuda.is_initialized(),
    threads=os.path.isdir("/proc/self/task") and len(os.listdir("/proc/self/task")) > 1).items() if changed]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """{stage: top-level modules that are imported at its end}; what the warm server changes beside; a run's folder."""
    folder = tmp_path_factory.mktemp("startup")
    run = ["--root", folder, "--output-dir", folder / "run", "--trainer", "DAPT", "--seed", 1,
           "--dataset-config-file", "configs/datasets/digits.yaml", "--config-file", "configs/trainers/DAPT/tiny.yaml",
           "DATASET.NUM_SHOTS", 1, "OPTIM.MAX_EPOCH", 1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",      # NumPy starts its own
                   "RUN": json.dumps([str(word) for word in run]), "RUN_FOUND": str(folder / "found.json")}
    done = subprocess.run([sys.executable, "-c", STAGES], cwd=ROOT, env=environment, capture_output=True, text=True,
                          timeout=300)
    assert done.returncode == 0, done.stderr
    found = {stage: set(names) for stage, names in json.loads(done.stdout.splitlines()[-1]).items()}
    return {**found, "run": set(json.loads((folder / "found.json").read_text())), "folder": folder / "run"}


def test_help_imports_nothing_heavy(imported):
    assert "tools" in imported["help"] and not imported["help"] & VERY_SLOW


def test_importing_clip_and_the_engine_warns_of_nothing_and_spares_slow_packages(imported):
    assert "torch" in imported["clip"] and not imported["clip"] & SLOW
    assert "dassl" in imported["engine"] and not imported["engine"] & {*SLOW, "tensorboard", "gdown", "wilds"}


def test_the_list_of_trainers_and_datasets_imports_torch_and_nothing_else_that_is_slow(imported):
    assert {"torch", "trainers", "datasets"} <= imported["list"] and not imported["list"] & SLOW


def test_a_whole_run_of_the_embedded_default_imports_nothing_slow_beside_torch_and_torchvision(imported):
    """Drawing the digits on a first run included."""
    assert (imported["folder"] / "results.json").exists() and not imported["run"] & (SLOW - {"torchvision"})


def test_the_warm_server_asks_for_no_gpu_draws_no_number_and_starts_no_thread(imported):
    assert not imported["warm changes"]
    assert {"torch", "dassl", "clip", "trainers", "datasets", "torch._dynamo"} <= imported["warm"]


def test_names_that_need_torchvision_are_there_when_asked_for():
    from torchvision.transforms import InterpolationMode

    from dassl.data.transforms import INTERPOLATION_MODES, transforms
    assert INTERPOLATION_MODES == transforms.INTERPOLATION_MODES == {
        "bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC,
        "nearest": InterpolationMode.NEAREST}
    with pytest.raises(ImportError, match="INTERPOLATION_MODE2"):
        from dassl.data.transforms import INTERPOLATION_MODE2  # noqa: F401
