"""Run folders for the tests of tools that read them, and sweeps without training."""
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tools import sweep, train
from tools.runs import inputs
from tools.runs.cell import ROOT
from tools.sweeping import launch

sys.path.insert(0, str(Path(__file__).parent))
import fake_train  # noqa: E402


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


@pytest.fixture(scope="session")
def _toy_runs(tmp_path_factory):
    return tmp_path_factory.mktemp("toy_runs")


@pytest.fixture
def toy_run(make_cfg, tmp_path, _toy_runs):
    """toy_run("CoOp", *opts) -> a copy of its run of two epochs on the toy images, which is trained once for all tests.

    log.txt is as tools/train.py has it.
    """
    from dassl.engine import build_trainer
    from dassl.utils import setup_logger

    def copy(trainer, *opts):
        kept = _toy_runs / "-".join(map(str, (trainer, *opts)))
        if not kept.exists():
            cfg = make_cfg(trainer, *opts, output=kept)
            with setup_logger(cfg.OUTPUT_DIR):
                build_trainer(cfg).train()
            (kept / "config.yaml").write_text(cfg.dump())
        own = tmp_path / kept.name
        return own if own.exists() else Path(shutil.copytree(kept, own))

    return copy


@pytest.fixture
def trained(toy_run):
    """Folder of a CoOp run with its confusion matrix."""
    return toy_run("CoOp", "TEST.COMPUTE_CMAT", "True")


class ForkedRun:
    """A run as launch.PlainRun has it, forked from this process: another Python would first have to import.

    Args:
        main: what the run does, given its arguments; returns the exit code.
    """

    def __init__(self, main, arguments, environment):
        pipes = [os.pipe() for _ in ("stdout", "stderr")]
        self._pid = os.fork()
        if not self._pid:
            self._be(main, arguments, environment, [write for _, write in pipes])
        for _, write in pipes:
            os.close(write)
        self.stdout, self.stderr = (os.fdopen(read, encoding="utf-8", errors="replace") for read, _ in pipes)

    @staticmethod
    def _be(main, arguments, environment, ends):
        code = 1
        try:
            for number, end in enumerate(ends, 1):
                os.dup2(end, number)
            sys.stdout, sys.stderr = (os.fdopen(number, "w") for number in (1, 2))
            sys.argv = ["train.py", *arguments]
            os.environ.update(environment)
            code = main(arguments)
        except SystemExit as end:
            print(end, file=sys.stderr)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def wait(self):
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])

    def send(self, number):
        os.kill(self._pid, number)


@pytest.fixture
def faked_sweep(tmp_path, monkeypatch, capsys):
    """faked_sweep(*words) -> (exit code, output, errors, folders below tmp_path/out in the order of their runs).

    The sweep runs in this process, with a stand-in for training (fake_train.py).
    """
    log = tmp_path / "calls"
    monkeypatch.setattr(launch, "PlainRun",
                        lambda command, environment: ForkedRun(fake_train.main, command[2:], environment))
    monkeypatch.setenv("OUTPUT", str(tmp_path / "out"))
    monkeypatch.setenv("FAKE_LOG", str(log))
    for name in ("SEEDS", "DATA", "FAKE_FAIL", "FAKE_HOW"):
        monkeypatch.delenv(name, raising=False)

    def call(*words):
        log.write_text("")
        capsys.readouterr()
        code = sweep.main(["--fresh-processes", "--jobs", "1", *map(str, words)])
        out, err = capsys.readouterr()
        return code, out, err, [line.removeprefix(f"{tmp_path}/out/") for line in log.read_text().splitlines()]

    return call


@pytest.fixture(scope="session")
def _echo(tmp_path_factory):
    """A stand-in for Python that has all packages and prints its arguments."""
    path = tmp_path_factory.mktemp("bin") / "python"
    path.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@"\n')
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def expanded(_echo, monkeypatch, capsys):
    """expanded("bash", "scripts/coop.sh", ...) or expanded("python", "tools/sweep.py", ...) -> commands, as words.

    What a script makes of its words is planned in this process, and nothing is run.
    """
    def call(*words, **environment):
        for name in ("SEEDS", "DATA", "OUTPUT"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        if words[0] == "bash":
            reply = subprocess.run(words, cwd=ROOT, env={**os.environ, "DASSL_PYTHON": _echo}, capture_output=True,
                                   text=True)
            assert reply.returncode == 0, reply.stderr
            words = ["python", *reply.stdout.splitlines()]
        assert (ROOT / words[1]).resolve() == ROOT / "tools" / "sweep.py"
        capsys.readouterr()
        assert sweep.main([*words[2:], "--dry-run"]) == 0
        return [shlex.split(line) for line in capsys.readouterr().out.splitlines()]

    return call
