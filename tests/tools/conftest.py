"""Run folders for the tests of tools that read them."""
import json

import pytest
import torch

from tools import inputs, train


@pytest.fixture
def make_run(make_cfg, tmp_path):
    """make_run("DVPcse", state) -> folder of a run as tools/train.py leaves it, with that as its learned prompts."""
    def make(trainer, state=None, names=None, epoch=2, record=True, folder="run", opts=()):
        cfg = make_cfg(trainer, *opts, output=tmp_path / folder)
        path = tmp_path / folder
        path.mkdir()
        (path / "config.yaml").write_text(cfg.dump())
        inputs.write(path, train.parser().parse_args(["--trainer", trainer, "--seed", "1"]))
        if state is not None:
            (path / "prompt_learner").mkdir()
            torch.save({"state_dict": state, "epoch": epoch}, path / "prompt_learner" / f"model.pth.tar-{epoch}")
            (path / "prompt_learner" / "checkpoint").write_text(f"model.pth.tar-{epoch}\n")
        if names:
            (path / "descriptions.json").write_text(json.dumps({name: [] for name in names}))
        if record:
            (path / "results.json").write_text(json.dumps(
                {"finished": True, "mode": "train", "split": "test", "metrics": {"accuracy": 81.25}}))
        return path

    return make


@pytest.fixture
def trained(make_cfg, tmp_path):
    """Folder of a CoOp run of two epochs; log.txt as tools/train.py has it."""
    from dassl.engine import build_trainer
    from dassl.utils import setup_logger

    cfg = make_cfg("CoOp", "TEST.COMPUTE_CMAT", "True")
    with setup_logger(cfg.OUTPUT_DIR):
        build_trainer(cfg).train()
    (tmp_path / "run" / "config.yaml").write_text(cfg.dump())
    return tmp_path / "run"
