"""trainers/README.md: its example trains, its commands parse, every brick and hook that it names is there."""
import importlib
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dassl.engine import build_trainer
from dassl.engine.plugins import ENTRY_POINT_GROUPS
from tools import new_trainer, train
from trainers._base import PromptTrainer

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "trainers" / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", TEXT, re.DOTALL)
PYTHON = [block for language, block in BLOCKS if language == "python"]
COMMANDS = [shlex.split(line, comments=True) for language, block in BLOCKS if language == "bash"
            for line in block.replace("\\\n", " ").splitlines()]
TRAINER, DATASET, TEST = PYTHON


@pytest.fixture
def files(tmp_path, monkeypatch):
    """near.py, dots.py and images, in a folder of their own that is the current one; forgotten afterwards."""
    from dassl.data.datasets import DATASET_REGISTRY
    from dassl.engine import TRAINER_REGISTRY

    (tmp_path / "near.py").write_text(TRAINER)
    (tmp_path / "dots.py").write_text(DATASET)
    for split in ("train", "test"):
        for name, colour in {"red_dot": 0, "blue_dot": 2}.items():
            (tmp_path / "data" / "dots" / split / name).mkdir(parents=True)
            for i in range(3):
                pixels = np.full((40, 40, 3), 40 * i, np.uint8)
                pixels[10:30, 10:30, colour] = 255
                Image.fromarray(pixels).save(tmp_path / "data" / "dots" / split / name / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    path, modules = list(sys.path), set(sys.modules)
    yield tmp_path
    sys.path[:] = path
    TRAINER_REGISTRY._obj_map.pop("NearZeroShot", None)
    DATASET_REGISTRY._obj_map.pop("Dots", None)
    for name in [name for name in sys.modules if name.startswith("dassl_plugin_") and name not in modules]:
        del sys.modules[name]


def commands(program):
    return [words[2:] for words in COMMANDS if words[1] == program]


def test_the_example_is_listed_with_its_file_and_its_source(files, capsys):
    assert train.cli(["--plugin", "near.py", "--list"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("NearZeroShot"))
    assert str(files / "near.py") in line and "Yao et al., CVPR 2023" in line


@pytest.mark.parametrize("number", [0, 1])
def test_the_example_trains_on_digits_and_on_its_own_dataset(number, files):
    words = commands("tools/train.py")[number]
    assert train.cli(["--root", "data", *words, "OPTIM.MAX_EPOCH", "1", "DATASET.NUM_SHOTS", "1"]) == 0
    run = files / words[words.index("--output-dir") + 1]
    assert list(torch.load(run / "prompt_learner" / "model.pth.tar-1", weights_only=True)["state_dict"]) == ["text.ctx"]
    assert (run / "results.json").is_file()


def test_its_answeringes(files, make_cfg):
    def cfg_of(name, *opts):
        make_cfg("CoOp")                                        # the toy images
        args = train.parser().parse_args([
            "--plugin", "near.py", "--transforms", "random_resized_crop", "normalize", "--trainer", name,
            "--root", "toy", "--config-file", "configs/trainers/CoOp/tiny.yaml", "DATASET.NAME", "Toy",
            *map(str, opts)])
        return train.setup_cfg(args)

    space = {"build_trainer": build_trainer, "torch": torch}
    exec(TEST, space)
    space["test_the_distance_is_that_of_the_fixed_sentences"](cfg_of)


def test_the_other_commands_are_understood(files):
    assert len(COMMANDS) == 5 and len(commands("tools/train.py")) == 3
    for words in commands("tools/train.py"):
        args = train.parser().parse_args(words)
        assert len(args.opts) % 2 == 0 and not any(word.startswith("-") for word in args.opts)
    assert new_trainer.parser().parse_args(commands("tools/new_trainer.py")[0]).name == "MyMethod"


def test_every_brick_that_it_names_exists():
    names = re.findall(r"`(trainers\.parts\.\w+)\.(\w+)", TEXT)
    assert len(names) >= 8
    for module, name in names:
        assert hasattr(importlib.import_module(module), name), f"{module}.{name}"


def test_every_hook_that_it_names_exists():
    table = TEXT[TEXT.index("## Facts and hooks"):TEXT.index("## Three ways to register a trainer")]
    names = [name for row in table.splitlines() if row.startswith("| `")
             for name in re.findall(r"`(\w+)", row.split("|")[1])]
    assert len(names) >= 14
    assert not [name for name in names if not hasattr(PromptTrainer, name)]


def test_its_entry_points_are_those_that_are_read():
    assert tuple(re.findall(r'entry-points\."(.+?)"', TEXT)) == ENTRY_POINT_GROUPS
