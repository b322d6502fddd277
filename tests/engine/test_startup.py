"""What commands import before they need it: lists of modules, because times differ between machines."""
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SLOW = {"torchvision", "sklearn", "scipy", "matplotlib", "open_clip", "timm", "pandas", "transformers", "IPython"}
VERY_SLOW = SLOW | {"torch", "numpy", "PIL", "tensorboard", "datasets", "trainers", "clip"}
REPORT = """
import json, runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print(json.dumps(sorted(sys.modules)))
"""


def modules_of(*command) -> set[str]:
    """Top-level modules that a command of the checkout has imported at its end."""
    done = subprocess.run([sys.executable, "-c", REPORT, *map(str, command)], cwd=ROOT, capture_output=True, text=True,
                          timeout=300)
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}


@pytest.mark.parametrize("tool", ["train", "sweep", "table", "bench", "data", "describe", "plot", "checkpoint",
                                  "new_trainer", "predict"])
def test_help_imports_nothing_heavy(tool):
    assert not modules_of(f"tools/{tool}.py", "--help") & VERY_SLOW


def test_the_list_of_trainers_and_datasets_imports_torch_and_nothing_else_that_is_slow():
    modules = modules_of("tools/train.py", "--list")
    assert {"torch", "trainers", "datasets"} <= modules and not modules & SLOW


def test_a_whole_run_of_the_embedded_default_imports_nothing_slow_beside_torch_and_torchvision(tmp_path):
    """Drawing the digits on a first run included. What makes torchvision slow an optimiser's first step imports too."""
    modules = modules_of(
        "tools/train.py", "--root", tmp_path, "--output-dir", tmp_path / "run", "--trainer", "DAPT", "--seed", 1,
        "--dataset-config-file", "configs/datasets/digits.yaml", "--config-file", "configs/trainers/DAPT/tiny.yaml",
        "DATASET.NUM_SHOTS", 1, "OPTIM.MAX_EPOCH", 1)
    assert (tmp_path / "run" / "results.json").exists() and not modules & (SLOW - {"torchvision"})


def test_names_that_need_torchvision_are_there_when_asked_for():
    from torchvision.transforms import InterpolationMode

    from dassl.data.transforms import INTERPOLATION_MODES, transforms
    assert INTERPOLATION_MODES == transforms.INTERPOLATION_MODES == {
        "bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC,
        "nearest": InterpolationMode.NEAREST}
    with pytest.raises(ImportError, match="INTERPOLATION_MODE2"):
        from dassl.data.transforms import INTERPOLATION_MODE2  # noqa: F401
