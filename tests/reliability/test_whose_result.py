"""A result on disk belongs to the inputs.json and config.yaml beside it, whatever comes after it is refused or cut."""
import json
import os
import shutil
from pathlib import Path

import pytest
import yaml

from tools import train
from tools.runs import inputs
from trainers._base import PromptTrainer

FEW = ("DATASET.NUM_SHOTS", "1", "OPTIM.MAX_EPOCH", "1", "DATALOADER.NUM_WORKERS", "0", "TEST.COMPUTE_CMAT", "True",
       "TEST.SPLIT", "val")                                        # of 10 images

BASE = ("DATASET.SUBSAMPLE_CLASSES", "base")


class Cut(BaseException):
    """The power fails."""


def cut(self, *_, **__):
    raise Cut


def run(folder, *flags, opts=(), dataset="digits", trainer="CoOp"):
    """Exit code; None where the power failed."""
    try:
        return train.cli(["--trainer", trainer, "--seed", "1", "--output-dir", str(folder), *flags, "--config-file",
                          f"configs/trainers/{trainer}/tiny.yaml", "--dataset-config-file",
                          f"configs/datasets/{dataset}.yaml", *FEW, *opts])
    except Cut:
        return None


def described(folder):
    return inputs.read(folder), yaml.safe_load((folder / "config.yaml").read_text())


def held(folder):
    """Every file but logs, with its bytes."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*")
            if path.is_file() and not path.name.startswith("log.txt")}


@pytest.fixture(scope="module")
def _trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert run(folder, opts=("TEST.FINAL_MODEL", "best_val")) == 0
    return folder


@pytest.fixture
def trained(_trained, tmp_path):
    return shutil.copytree(_trained, tmp_path / "run")


@pytest.mark.parametrize(("flags", "options", "code"), [
    (["--eval-only", "--model-dir", "{run}", "--load-epoch", "99"], {"opts": BASE}, 2),
    (["--no-train"], {"opts": ("OPTIM.LR", "0.5")}, 0),
    (["--anew"], {"dataset": "oxford_pets"}, 2),
    ([], {"opts": ("TEST.FINAL_MODEL", "best_val", *BASE)}, None),
    (["--resume", "{run}"], {"trainer": "VPT"}, 2)])
def test_what_is_refused_or_only_built_leaves_a_result_and_its_description(trained, flags, options, code, monkeypatch):
    before = held(trained)
    monkeypatch.chdir(train.ROOT)
    if code is None:
        monkeypatch.setattr(PromptTrainer, "build_model", cut)
    flags = [flag.format(run=trained) for flag in flags]
    assert run(trained, *(["--root", str(trained.parent)] if code == 2 else []), *flags, **options) == code
    assert held(trained) == before


@pytest.mark.parametrize(("flags", "options"), [
    ([], {"opts": ("OPTIM.LR", "0.5")}),
    (["--resume", "{run}"], {"opts": ("OPTIM.MAX_EPOCH", "2")}),
    (["--eval-only", "--model-dir", "{run}", "--load-epoch", "1"], {"opts": BASE})])
def test_at_no_moment_does_a_result_lie_beside_another_runs_description(trained, flags, options, monkeypatch):
    def state():
        files = [trained / name for name in ("results.json", "predictions.csv")]
        return [path.read_bytes() if path.exists() else None for path in files], described(trained)

    seen = [state()]

    def watched(call):
        def told(*args, **kwargs):
            seen.append(state())
            return call(*args, **kwargs)
        return told

    for owner, name in ((os, "replace"), (Path, "unlink"), (Path, "replace")):
        monkeypatch.setattr(owner, name, watched(getattr(owner, name)))
    assert run(trained, *[flag.format(run=trained) for flag in flags], **options) == 0
    seen.append(state())
    then, now = seen[0], seen[-1]
    assert then[1] != now[1] and len(seen) > 5
    for (result, predictions), description in seen:
        assert result is None or ([result, predictions], description) in (then, now)


def test_a_new_training_keeps_nothing_that_a_former_one_learned(trained, monkeypatch):
    shutil.copy(trained / "classes.json", trained / "descriptions.json")
    (trained / "plots").mkdir()
    (trained / "plots" / "curves.png").touch()
    former = held(trained)
    assert {"cmat.pt", "predictions.csv", "prompt_learner/model-best.pth.tar", "prompt_learner/model.pth.tar-1"} <= \
        set(former) and any(name.startswith("tensorboard/") for name in former)
    monkeypatch.setattr(PromptTrainer, "forward_backward", cut)
    assert run(trained, opts=("OPTIM.LR", "0.5")) is None
    left = held(trained)
    assert {"config.yaml", "inputs.json", "classes.json"} <= set(left)
    assert all(name.startswith("tensorboard/") and name not in former for name in set(left) - {
        "config.yaml", "inputs.json", "classes.json", "run.lock", "run.lock.txt"})


def test_a_second_test_of_a_run_in_its_own_folder_adds_a_file_and_the_training_stays_recorded(trained, monkeypatch):
    monkeypatch.chdir(train.ROOT)
    (inputs_before, _), before = described(trained), json.loads((trained / "results.json").read_text())
    opts = ("TEST.FINAL_MODEL", "best_val", "TEST.SAVE_LOGITS", "True")
    assert run(trained, "--eval-only", "--model-dir", str(trained), opts=opts) == 0
    after = json.loads((trained / "results.json").read_text())
    assert (trained / "logits.npz").exists() and (trained / "prompt_learner" / "checkpoint").exists()
    same = ("mode", "epochs", "seconds", "model_selection", "metrics", "split_hash")
    assert {name: after[name] for name in same} == {name: before[name] for name in same}
    assert inputs.differences(inputs_before, described(trained)[0]) == []


def test_what_a_sweep_makes_anew_costs_the_former_result_only_once_it_begins(trained, monkeypatch):
    monkeypatch.setenv(train.SWEEP, train.ANEW)
    before = held(trained)
    assert run(trained, "--root", str(trained.parent), dataset="oxford_pets") == 2 and held(trained) == before
    monkeypatch.setattr(PromptTrainer, "forward_backward", cut)
    assert run(trained) is None
    assert "results.json" not in held(trained) and "prompt_learner/checkpoint" not in held(trained)


def test_a_trainer_that_writes_by_itself_keeps_what_it_wrote(trained, monkeypatch):
    def by_itself(self):
        Path(self.output_dir, "results.json").write_text('{"finished": true, "metrics": {"own": 1.0}}')
        Path(self.output_dir, "prompt_learner", "model.pth.tar-1").write_text("mine")

    monkeypatch.setattr(PromptTrainer, "train", by_itself)
    assert run(trained, opts=("OPTIM.LR", "0.5")) == 0
    left = held(trained)
    assert left["prompt_learner/model.pth.tar-1"] == b"mine" and b"own" in left["results.json"]
    assert "prompt_learner/model-best.pth.tar" not in left and described(trained)[0]["opts"]["OPTIM.LR"] == "0.5"


@pytest.mark.parametrize(("flags", "words"), [
    (["--model-dir", "{run}"], "only tested: prompt_learner/model-best.pth.tar (epoch 1)"),
    (["--model-dir", "{run}", "--load-epoch", "1"], "only tested: prompt_learner/model.pth.tar-1 (epoch 1)"),
    ([], "only tested: nothing was loaded")])
def test_a_test_only_says_which_file_it_loaded(trained, tmp_path, flags, words):
    assert run(tmp_path / "test", "--eval-only", *[flag.format(run=trained) for flag in flags]) == 0
    assert words in json.loads((tmp_path / "test" / "results.json").read_text())["model_selection"]
