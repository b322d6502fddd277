"""A run forked from the warm server is the run that a fresh process makes, to the bit."""
import json
import os
import shlex
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from tools import train
from tools.runs import inputs
from tools.sweeping import launch

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(not launch.can_fork(), reason="the warm server needs Linux")
ONE_BY_ONE = """
import json, sys
from tools import train
sys.exit(any(train.cli(words) for words in json.loads(sys.argv[1])))
"""


def environment(**more):
    left = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "SEEDS", "DATA", "OUTPUT")}
    return {**left, **more}


def test_runs_are_told_of_the_servers_end_under_the_lock_by_which_others_are_asked_for(monkeypatch):
    class Watched(dict):
        def values(self):
            seen.append(server._lock.locked())
            return super().values()

    seen, lost = [], threading.Event()
    monkeypatch.setattr(launch, "server_command", lambda: [sys.executable, "-c", "pass"])
    monkeypatch.setattr(launch.WarmServer, "__setattr__", lambda self, name, value: object.__setattr__(
        self, name, Watched(value) if name == "_runs" else value))
    server = launch.WarmServer({}, lambda server: lost.set())
    assert lost.wait(30) and seen == [True]
    server.close()


def same_runs(first: Path, second: Path) -> None:
    """Equal checkpoints, bit for bit, equal predictions, and results that differ in time and memory alone."""
    files = sorted(path.relative_to(first) for path in first.rglob("*.pth.tar-*"))
    assert files or "Zeroshot" in str(first)
    for file in files:
        ours, theirs = (torch.load(folder / file, weights_only=True)["state_dict"] for folder in (first, second))
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert (first / "predictions.csv").read_bytes() == (second / "predictions.csv").read_bytes()
    ours, theirs = (json.loads((folder / "results.json").read_text()) for folder in (first, second))
    for key in ("metrics", "split_hash", "config_hash", "learned_parameters", "transforms"):
        assert ours[key] == theirs[key], key
    ours, theirs = (json.loads((folder / "inputs.json").read_text()) for folder in (first, second))
    assert not inputs.differences(ours, theirs)


def sweep_and_plain(folder: Path, *words: str) -> list[Path]:
    """A sweep, and its dry run's commands one after the other in a fresh process; run folders below either output."""
    sweep = [sys.executable, "tools/sweep.py", "--shots", "1", "--seeds", "1", "--data", str(folder / "data"), *words,
             "OPTIM.MAX_EPOCH", "2"]
    done = subprocess.run(sweep, cwd=ROOT, env=environment(OUTPUT=str(folder / "forked")), capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    dry = subprocess.run([*sweep, "--dry-run"], cwd=ROOT, env=environment(OUTPUT=str(folder / "plain")),
                         capture_output=True, text=True, check=True)
    commands = [shlex.split(line) for line in dry.stdout.splitlines()]
    assert all(command[1] == "tools/train.py" for command in commands)
    subprocess.run([sys.executable, "-c", ONE_BY_ONE, json.dumps([command[2:] for command in commands])],
                   cwd=ROOT, env=environment(), capture_output=True, check=True)
    return [path.parent.relative_to(folder / "plain") for path in (folder / "plain").rglob("results.json")]


@pytest.mark.slow
def test_forked_runs_of_every_recipe_equal_plain_ones_to_the_bit(tmp_path):
    recipes = ["dapt", "coop", "cocoop", "vpt", "attrvr", "dvp_cse", "dvp_cls", "linear_probe", "vp", "ar"]
    runs = sweep_and_plain(tmp_path, "--recipe", *recipes, "--datasets", "digits", "--jobs", "2")
    assert len(runs) == len(recipes) + 1                        # zero-shot CLIP, to compare with, is the other
    for run in runs:
        same_runs(tmp_path / "forked" / run, tmp_path / "plain" / run)


@pytest.mark.parametrize(("asked", "threads"), [(None, [1]), ("2", [])])
def test_the_embedded_model_takes_one_thread_unless_asked_otherwise(asked, threads, tmp_path, monkeypatch):
    chosen: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    monkeypatch.setenv("OMP_NUM_THREADS", asked) if asked else monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    words = ["--root", tmp_path, "--trainer", "ZeroshotCLIP", "--no-train", "--output-dir", tmp_path / "run",
             "--dataset-config-file", "configs/datasets/digits.yaml", "--config-file",
             "configs/trainers/ZeroshotCLIP/tiny.yaml"]
    assert train.cli([str(word) for word in words]) == 0 and chosen == threads
