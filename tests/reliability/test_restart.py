"""A run that is killed or asked to end resumes by the same command and ends as if nothing had been, to the bit."""
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import kill_anywhere  # noqa: E402

from dassl import stop  # noqa: E402
from dassl.engine import build_trainer  # noqa: E402
from dassl.engine.resume import FILE  # noqa: E402
from dassl.files.whole import remove_parts, write_whole  # noqa: E402
from dassl.utils import set_random_seed  # noqa: E402
from tools import train  # noqa: E402
from tools.running import restart  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
FEW = ("DATASET.NUM_SHOTS", "2", "OPTIM.MAX_EPOCH", "2", "DATALOADER.TRAIN_X.BATCH_SIZE", "4", "TEST.SPLIT", "val")


def words(folder, *flags, opts=FEW, trainer="CoOp"):
    return ["--trainer", trainer, "--seed", "1", "--output-dir", str(folder), *flags, "--config-file",
            f"configs/trainers/{trainer}/tiny.yaml", "--dataset-config-file", "configs/datasets/digits.yaml", *opts]


class Cut(BaseException):
    """The power fails: nothing but this is caught by nobody."""


@pytest.fixture
def cut_after(monkeypatch):
    """cut_after(steps): the training ends there without a word; every step was saved."""
    def arrange(steps):
        from trainers._base import PromptTrainer

        step, taken = PromptTrainer.forward_backward, []

        def counted(self, batch):
            if len(taken) == steps:
                raise Cut
            taken.append(step(self, batch))
            return taken[-1]

        monkeypatch.setattr(PromptTrainer, "forward_backward", counted)
        return taken
    return arrange


ALWAYS = ("TRAIN.CHECKPOINT_SECONDS", "1e-9")


@pytest.fixture(autouse=True)
def _save_as_often_as_asked(monkeypatch):
    monkeypatch.setattr("dassl.engine.hooks.autosave._LEAST_SHARE", 0)


def build_and_train(cfg):
    set_random_seed(1)
    trainer = build_trainer(cfg)
    try:
        trainer.train()
    finally:
        trainer.close_loaders()                             # without its process, a cut training leaves its workers
    return trainer


@pytest.mark.parametrize(("name", "steps"), [("CoOp", 3), ("DAPT", 11), ("DVPcse", 12), ("AttrVR", 1)])
def test_a_training_cut_within_an_epoch_goes_on_to_the_same_bits(name, steps, make_cfg, tmp_path, cut_after,
                                                                 monkeypatch):
    of_dapt = ("DATALOADER.NUM_WORKERS", 2, "TRAINER.DAPT.VIS_DROPOUT", 0.5)       # each step draws random numbers
    opts = ("DATALOADER.CACHE_MB", 0, "OPTIM.MAX_EPOCH", 3, "DATALOADER.TRAIN_X.BATCH_SIZE", 2, *ALWAYS,
            *(of_dapt if name == "DAPT" else ("DATALOADER.NUM_WORKERS", 0)))
    whole = build_and_train(make_cfg(name, *opts, output=tmp_path / "whole"))
    with monkeypatch.context() as patch:
        cut_after(steps)
        with pytest.raises(Cut):
            build_and_train(make_cfg(name, *opts, output=tmp_path / "cut"))
        patch.undo()
    monkeypatch.undo()
    state = torch.load(tmp_path / "cut" / FILE, weights_only=True)
    assert state["batch"] > 0, "it was cut within an epoch"
    again = build_and_train(make_cfg(name, *opts, "RESUME", str(tmp_path / "cut"), output=tmp_path / "cut"))
    a, b = (kill_anywhere.outcome(tmp_path / folder) for folder in ("whole", "cut"))
    for found in (a, b):
        found["results.json"].pop("config_hash")
    assert kill_anywhere.differences(a, b) == []
    assert whole.start_epoch == 0 and again.start_epoch == state["epoch"]


def test_the_same_command_goes_on_and_any_other_starts_anew(tmp_path, cut_after, caplog, monkeypatch):
    folder = tmp_path / "run"

    def begin(*flags, opts=FEW):
        caplog.clear()
        with pytest.raises(Cut):
            train.cli(words(folder, *flags, opts=(*opts, *ALWAYS)))
        return caplog.text

    taken = cut_after(3)
    assert "which resumes" not in begin()
    assert (folder / FILE).exists()
    taken.clear()
    assert "which resumes; --anew" in begin()
    assert torch.load(folder / FILE, weights_only=True)["epoch"] == 1          # 3 + 3 steps of 5 an epoch
    taken.clear()
    assert "cannot resume: OPTIM.LR not set, now 0.1" in begin(opts=(*FEW, "OPTIM.LR", "0.1"))
    taken.clear()
    assert "which resumes" not in begin("--anew", opts=(*FEW, "OPTIM.LR", "0.1"))
    taken.clear()
    monkeypatch.setattr(restart, "_CODE", ("clip",))
    assert "the program has changed since" in begin(opts=(*FEW, "OPTIM.LR", "0.1"))


def test_a_finished_run_is_trained_again_and_its_old_result_is_gone_at_once(tmp_path, cut_after):
    assert train.cli(words(tmp_path)) == 0
    assert not (tmp_path / FILE).exists()
    cut_after(0)
    with pytest.raises(Cut):
        train.cli(words(tmp_path))
    assert not (tmp_path / "results.json").exists() and not list(tmp_path.glob("*/checkpoint"))


def test_sigterm_saves_within_the_epoch_and_the_same_command_ends_alike(tmp_path, monkeypatch, capsys):
    from trainers._base import PromptTrainer

    assert train.cli(words(tmp_path / "whole")) == 0
    step, taken = PromptTrainer.forward_backward, []

    def asked_to_end(self, batch):
        taken.append(batch)
        if len(taken) == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, batch)

    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(PromptTrainer, "forward_backward", asked_to_end)
        assert train.cli(words(tmp_path / "cut")) == 143
    err = capsys.readouterr().err
    assert "Ended by SIGTERM. The same command resumes" in err and "Traceback" not in err
    assert signal.getsignal(signal.SIGTERM) is before and len(taken) == 7
    state = torch.load(tmp_path / "cut" / FILE, weights_only=True)
    assert (state["epoch"], state["batch"]) == (1, 2)
    assert not (tmp_path / "cut" / "run.lock").exists()
    assert train.cli(words(tmp_path / "cut")) == 0
    assert kill_anywhere.differences(*(kill_anywhere.outcome(tmp_path / name) for name in ("whole", "cut"))) == []


def test_a_burst_of_signals_counts_as_one_and_a_later_signal_ends_the_run_at_once(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(stop.time, "monotonic", lambda: now[0])
    with stop.on_signals(), stop.at_safe_points():
        for number in (signal.SIGTERM, signal.SIGCONT, signal.SIGTERM, signal.SIGHUP):      # Slurm's pre-emption
            os.kill(os.getpid(), number)
            now[0] += stop.BURST_SECONDS / 4
        assert stop.requested()
        with pytest.raises(stop.Terminated):
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
    assert not stop.requested()


def test_outside_of_safe_points_sigterm_ends_at_once():
    with stop.on_signals(), pytest.raises(stop.Terminated) as end:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
    assert end.value.code == 143


def test_a_hangup_that_nohup_ignores_stays_ignored():
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop.on_signals():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, former)


def test_a_damaged_state_is_told_and_the_checkpoint_is_taken(make_cfg, tmp_path, caplog):
    opts = ("TRAIN.CHECKPOINT_FREQ", 1)
    whole = build_and_train(make_cfg("CoOp", *opts, output=tmp_path))
    (tmp_path / FILE).write_bytes(b"PK half a file")
    again = build_and_train(make_cfg("CoOp", *opts, "RESUME", str(tmp_path), output=tmp_path))
    assert again.start_epoch == 2 and "cannot be used" in caplog.text
    assert kill_anywhere.differences(*(dict(t.model.prompt_learner.state_dict()) for t in (whole, again))) == []


def test_files_are_whole_or_as_before(tmp_path, monkeypatch):
    path = tmp_path / "a" / "b.txt"
    write_whole(path, "first")
    monkeypatch.setattr(os, "fsync", lambda number: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        write_whole(path, "second")
    assert path.read_text() == "first" and [p.name for p in path.parent.iterdir()] == ["b.txt"]
    (path.parent / ".b.txt.x.part").touch()
    remove_parts(tmp_path)
    assert [p.name for p in path.parent.iterdir()] == ["b.txt"]


def kill_some(times, seed, trainers):
    reply = subprocess.run([sys.executable, str(Path(kill_anywhere.__file__)), "--times", str(times), "--seed",
                            str(seed), "--trainers", *trainers], capture_output=True, text=True, timeout=1200,
                           env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert reply.returncode == 0, reply.stdout + reply.stderr
    assert f"{times} kills in " in reply.stdout


@pytest.mark.slow
def test_kills_of_a_sweep_change_nothing():
    script = Path(kill_anywhere.__file__).with_name("kill_a_sweep.py")
    reply = subprocess.run([sys.executable, str(script), "--times", "1", "--recipes", "coop", "--seeds", "1"],
                           capture_output=True, text=True, timeout=3600)
    assert reply.returncode == 0 and "1 kills of" in reply.stdout, reply.stdout + reply.stderr


@pytest.mark.slow
def test_kills_of_two_trainers_change_nothing():
    draw = random.SystemRandom()
    kill_some(4, draw.randrange(10 ** 6), draw.sample(kill_anywhere.TRAINERS, 2))


def test_outcomes_that_differ_are_seen():
    a = {"x": torch.tensor([1.0]), "y": [1, {"z": 2}]}
    assert kill_anywhere.differences(a, json.loads('{"x": 1}')) != []
    assert kill_anywhere.differences(a, {**a, "x": torch.tensor([1.0 + 1e-7])}) == ["x"]
    assert kill_anywhere.differences(a, {**a, "y": [1, {"z": 3}]}) == ["y 1 z"]
    assert kill_anywhere.differences(a, {**a}) == []
