"""A clone of a CoOp-style repository runs with its own train.py and folders beside the installed dassl."""
import contextlib
import io
import os
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]

TRAIN = """
import argparse
import clip, datasets.pets, trainers.mine
from dassl.config import get_cfg_default
from dassl.engine import build_trainer
from dassl.utils import collect_env_info, set_random_seed, setup_logger


def extend_cfg(cfg):
    from yacs.config import CfgNode as CN
    cfg.TRAINER.COOP = CN()
    cfg.TRAINER.COOP.N_CTX = 4
    cfg.TRAINER.COOP.PREC = "fp32"
    cfg.DATASET.SUBSAMPLE_CLASSES = "all"


parser = argparse.ArgumentParser()
for flag in ("--root", "--output-dir", "--config-file", "--trainer", "--model-dir"):
    parser.add_argument(flag, default="")
parser.add_argument("--seed", type=int, default=-1)
parser.add_argument("--load-epoch", type=int)
parser.add_argument("--eval-only", action="store_true")
parser.add_argument("opts", nargs=argparse.REMAINDER)
args = parser.parse_args()
cfg = get_cfg_default()
extend_cfg(cfg)
cfg.merge_from_file(args.config_file)
cfg.DATASET.ROOT, cfg.OUTPUT_DIR, cfg.SEED, cfg.TRAINER.NAME = args.root, args.output_dir, args.seed, args.trainer
cfg.merge_from_list(args.opts)
cfg.freeze()
set_random_seed(cfg.SEED)
setup_logger(cfg.OUTPUT_DIR)
print(cfg, collect_env_info(), sep="\\n")
for module in (clip, datasets.pets, trainers.mine):
    print("FROM", module.__file__)
trainer = build_trainer(cfg)
if args.eval_only:
    trainer.load_model(args.model_dir, epoch=args.load_epoch)
    trainer.test()
else:
    trainer.train()
"""

DATASET = """
import os, pickle
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from dassl.utils import mkdir_if_missing, read_json, write_json


@DATASET_REGISTRY.register()
class OxfordPets(DatasetBase):
    dataset_dir = "oxford_pets"

    def __init__(self, cfg):
        folder = os.path.join(os.path.abspath(os.path.expanduser(cfg.DATASET.ROOT)), self.dataset_dir)
        split_path, few = os.path.join(folder, "split.json"), os.path.join(folder, "split_fewshot")
        mkdir_if_missing(few)
        if not os.path.exists(split_path):
            write_json({part: self.listed(folder, part) for part in ("trainval", "test")}, split_path)
        split = {part: [Datum(impath=os.path.join(folder, path), label=int(label), classname=name)
                        for path, label, name in items] for part, items in read_json(split_path).items()}
        train, val = split["trainval"][::2], split["trainval"][1::2]
        saved = os.path.join(few, f"shot_{cfg.DATASET.NUM_SHOTS}-seed_{cfg.SEED}.pkl")
        if os.path.exists(saved):
            with open(saved, "rb") as file:
                train, val = pickle.load(file)
        else:
            train = self.generate_fewshot_dataset(train, num_shots=cfg.DATASET.NUM_SHOTS)
            val = self.generate_fewshot_dataset(val, num_shots=min(cfg.DATASET.NUM_SHOTS, 4))
            with open(saved, "wb") as file:
                pickle.dump((train, val), file, protocol=pickle.HIGHEST_PROTOCOL)
        super().__init__(train_x=train, val=val, test=split["test"])

    @staticmethod
    def listed(folder, part):
        with open(os.path.join(folder, "annotations", f"{part}.txt")) as lines:
            rows = [line.split() for line in lines]
        return [(f"images/{name}.jpg", int(label) - 1, name.rsplit("_", 1)[0].lower()) for name, label, *_ in rows]
"""

CONFIG = """
DATALOADER:
  TRAIN_X:
    BATCH_SIZE: 4
  NUM_WORKERS: 0
DATASET:
  NAME: "OxfordPets"
  NUM_SHOTS: 2
INPUT:
  SIZE: (32, 32)
  INTERPOLATION: "bicubic"
  TRANSFORMS: ["random_resized_crop", "random_flip", "normalize"]
OPTIM:
  NAME: "sgd"
  LR: 0.002
  MAX_EPOCH: 1
  LR_SCHEDULER: "cosine"
  WARMUP_EPOCH: 1
  WARMUP_TYPE: "constant"
  WARMUP_CONS_LR: 1e-5
"""


def in_clone(home, installed, arguments):
    """What `python train.py` prints there; this process has imported PyTorch, and forgets what it knows of ours."""
    for name in [name for name in sys.modules if name.partition(".")[0] in
                 ("dassl", "dassl_prompts", "clip", "datasets", "trainers", "tools")]:
        del sys.modules[name]
    sys.path[:] = [str(home), str(installed), *(p for p in sys.path if p and Path(p).resolve() != ROOT)]
    sys.argv = ["train.py", *arguments]
    os.chdir(home)
    os.environ["CLIP_CACHE"] = str(home.with_name("cache"))
    with contextlib.redirect_stdout(io.StringIO()) as said:
        runpy.run_path("train.py", run_name="__main__")
    return said.getvalue()


@pytest.fixture
def clone(tmp_path, tiny_clip_file, forked):
    """clone(own_clip) -> a function that runs its train.py with more arguments and gives what it printed."""
    from tests.datasets.trees import make_tree

    make_tree("OxfordPets", tmp_path / "data")
    picture = io.BytesIO()
    Image.fromarray(np.random.RandomState(0).randint(0, 255, (40, 50, 3), np.uint8)).save(picture, "JPEG")
    for image in (tmp_path / "data" / "oxford_pets" / "images").iterdir():
        image.write_bytes(picture.getvalue())
    installed, home = tmp_path / "site-packages", tmp_path / "clone"
    installed.mkdir()
    for package in ("dassl", "clip"):                                   # what `pip install -e .` makes importable
        (installed / package).symlink_to(ROOT / package)
    for folder in ("datasets", "trainers"):
        (home / folder).mkdir(parents=True)
        (home / folder / "__init__.py").touch()
    (home / "train.py").write_text(TRAIN)
    (home / "vit.yaml").write_text(CONFIG)
    (home / "datasets" / "pets.py").write_text(DATASET)
    shutil.copy(ROOT / "tests" / "coop_style_trainer.py", home / "trainers" / "mine.py")

    def make(own_clip):
        if own_clip:
            shutil.copytree(ROOT / "clip", home / "clip", ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))

        def run(*arguments):
            return forked(in_clone, home, installed, [
                "--root", "../data", "--seed", "1", "--trainer", "CoOpStyle", "--config-file", "vit.yaml", *arguments,
                "MODEL.BACKBONE.NAME", str(tiny_clip_file)])()

        return home, run

    return make


@pytest.mark.parametrize("own_clip", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_clone_trains_with_its_own_folders_and_the_installed_engine(clone, own_clip, tmp_path):
    home, run = clone(own_clip)
    said = run("--output-dir", "out")
    origins = [Path(line[5:]) for line in said.splitlines() if line.startswith("FROM ")]
    expected_clip = home if own_clip else tmp_path / "site-packages"
    assert [path.parents[1] for path in origins] == [expected_clip, home, home]
    result = results_in(home / "out")
    assert any("* accuracy:" in line for line in result)
    assert (home / "out" / "prompt_learner" / "model.pth.tar-1").is_file()
    if not own_clip:
        run("--output-dir", "eval", "--eval-only", "--model-dir", "out", "--load-epoch", "1")
        assert results_in(home / "eval") == result


def results_in(folder):
    return [line for line in (folder / "log.txt").read_text().splitlines() if line.startswith("* ")]
