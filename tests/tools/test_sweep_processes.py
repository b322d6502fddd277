"""Runs as processes: side by side, forked or plain, ended, lost, held elsewhere. Stand-ins write what runs write."""
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tools.sweeping import launch

HERE = Path(__file__).resolve().parent
WORDS = ["--recipe", "dapt", "--datasets", "digits", "--shots", "16"]
ZERO, SEEDS = "ZeroshotCLIP/tiny/seed1", [f"DAPT/tiny_16shots/seed{s}" for s in (1, 2, 3)]
KINDS = [pytest.param([], id="forked", marks=pytest.mark.skipif(not launch.can_fork(), reason="needs Linux")),
         pytest.param(["--fresh-processes"], id="plain")]
needs_fork = pytest.mark.skipif(not launch.can_fork(), reason="the warm server needs Linux")


class Sweep:
    """A sweep in a process of its own, with stand-ins for its runs."""

    def __init__(self, folder):
        self.folder, self.log, self.facts_file = folder, folder / "calls", folder / "facts"
        self.started: list[subprocess.Popen] = []
        self.environment = {"OUTPUT": str(folder / "out"), "FAKE_LOG": str(self.log), "FAKE_MARKER": "seen",
                            "FAKE_FACTS": str(self.facts_file), "OMP_NUM_THREADS": "1"}

    def start(self, *words, **environment):
        self.log.write_text("")
        self.facts_file.write_text("")
        ours = ("SEEDS", "DATA")
        process = subprocess.Popen([sys.executable, HERE / "fake_sweep.py", *WORDS, *words], cwd=self.folder, text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
                                   preexec_fn=_interruptible, env={
                                       **{k: v for k, v in os.environ.items() if k not in ours}, **self.environment,
                                       **environment})
        self.started.append(process)
        return process

    def run(self, *words, **environment):
        """(exit code, output, run folders in the order of their runs)."""
        process = self.start(*words, **environment)
        out, _ = process.communicate(timeout=60)
        return process.returncode, out, self.calls()

    def calls(self):
        return [line.removeprefix(f"{self.folder}/out/digits/") for line in self.log.read_text().splitlines()]

    def facts(self):
        return [json.loads(line) for line in self.facts_file.read_text().splitlines()]

    def until(self, condition):
        end = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < end, "it never came to that"
            time.sleep(0.02)

    def gone(self, pids):
        """Wait until these processes have ended."""
        self.until(lambda: not any(_alive(pid) for pid in pids))
        return True


def _interruptible():
    """As on a terminal; jobs in the background of a shell, and what they start, would ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _alive(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


@pytest.fixture
def sweep(tmp_path):
    sweep = Sweep(tmp_path)
    yield sweep
    for process in sweep.started:
        process.kill()                              # its runs end with it
        process.wait()


@pytest.mark.parametrize("kind", KINDS)
def test_runs_go_side_by_side_after_the_first(sweep, kind):
    code, out, calls = sweep.run(*kind, "--jobs", "3", FAKE_MEET="3")
    assert code == 0, out
    assert calls[0] == ZERO and sorted(calls) == sorted([ZERO, *SEEDS]) and "3 at a time" in out


@pytest.mark.parametrize("kind", KINDS)
def test_runs_are_spread_over_the_gpus_and_each_sees_its_own(sweep, kind):
    code, out, _ = sweep.run(*kind, "--jobs", "3", FAKE_GPUS="4 GPU-7f", FAKE_MEET="3")
    assert code == 0 and "3 at a time on 2 GPUs" in out, out
    assert sorted(run["gpu"] for run in sweep.facts() if run["trainer"] == "DAPT") == ["4", "4", "GPU-7f"]


@needs_fork
def test_a_fork_is_a_run_of_its_own(sweep):
    assert sweep.run("--seeds", "1")[0] == 0
    forked = sweep.facts()
    sweep.run("--seeds", "1", "--force", "--fresh-processes")
    plain = sweep.facts()
    assert len({run["parent"] for run in forked}) == 1 and len({run["pid"] for run in forked}) == 2
    for each, other in zip(forked, plain, strict=True):
        for fact in ("argv", "cwd", "marker", "sweep", "interrupt"):
            assert each[fact] == other[fact], fact
    assert forked[0]["parent"] != plain[0]["parent"]


def crossed(*cases):
    """Each case with one kind of run, in turn; with the other kind it is slow."""
    return [pytest.param(*case, *kind.values, id=f"{case[0]}-{kind.id}",
                         marks=[*kind.marks, *([] if (i + j) % 2 == 0 else [pytest.mark.slow])])
            for i, case in enumerate(cases) for j, kind in enumerate(KINDS)]


@pytest.mark.parametrize(("number", "code", "kind"), crossed((signal.SIGINT, 130), (signal.SIGTERM, 143)))
def test_an_interrupted_sweep_ends_its_runs_and_goes_on_later(sweep, kind, number, code):
    process = sweep.start(*kind, "--jobs", "2", FAKE_FAIL="/DAPT", FAKE_HOW="hang")
    sweep.until(lambda: len(sweep.facts()) == 3)
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)     # as a terminal does
    out, _ = process.communicate(timeout=60)
    assert process.returncode == code and "1 of 4 runs are finished" in out and "resumes from here" in out, out
    assert sweep.gone(run["pid"] for run in sweep.facts())
    assert sorted(sweep.run(*kind)[2]) == SEEDS


@needs_fork
def test_signals_to_the_whole_group_leave_it_to_the_sweep_to_end_its_runs(sweep):
    """Slurm, `timeout` and docker send them to every process; a burst counts as one, and each run may save."""
    process = sweep.start("--jobs", "2", FAKE_FAIL="/DAPT", FAKE_HOW="save")
    sweep.until(lambda: len(list(sweep.folder.rglob("ready"))) == 2)
    for number in (signal.SIGTERM, signal.SIGCONT, signal.SIGTERM):
        os.killpg(process.pid, number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 143 and "has ended (" not in out, out
    assert sorted(path.parent.name for path in sweep.folder.rglob("saved")) == ["seed1", "seed2"]


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_sweep_leaves_nothing_that_goes_on(sweep, kind):
    process = sweep.start(*kind, "--jobs", "2", FAKE_FAIL="/DAPT", FAKE_HOW="hang")
    sweep.until(lambda: len(sweep.facts()) == 3)
    process.kill()
    process.communicate()
    assert sweep.gone({run[who] for run in sweep.facts() for who in ("pid", "parent")} - {os.getpid(), process.pid})


@needs_fork
def test_when_the_server_dies_its_runs_are_made_again_as_plain_ones(sweep):
    code, out, calls = sweep.run("--jobs", "1", FAKE_FAIL="seed2", FAKE_HOW="server")
    assert code == 0 and "3/3" in out, out
    assert "starts a process of its own" in out and "FAILED" not in out
    assert calls == [ZERO, SEEDS[0], SEEDS[1], SEEDS[1], SEEDS[2]]


@needs_fork
def test_a_server_that_cannot_start_is_told_with_its_last_words(sweep, tmp_path):
    (tmp_path / "ctypes.py").write_text("raise ImportError('no such thing here')")
    code, out, calls = sweep.run(PYTHONPATH=str(tmp_path))
    assert code == 0 and len(calls) == 4 and "no such thing here" in out, out


@pytest.mark.parametrize(("how", "words", "kind"), crossed(("crash", "exit code 1"), ("kill", "killed by signal 9")))
def test_one_failure_costs_one_run(sweep, kind, how, words):
    code, out, calls = sweep.run(*kind, "--jobs", "2", FAKE_FAIL="seed2", FAKE_HOW=how)
    assert code == 1 and sorted(calls) == sorted([ZERO, *SEEDS]), out
    assert f"seed 2: FAILED ({words}" in out and "the cat ate the batch" in out and "seed2/log.txt" in out
    assert "2/3" in out and out.index("2/3") < out.index("the cat ate the batch")
    assert sweep.run(*kind)[2] == [SEEDS[1]]


def test_what_one_method_cannot_do_costs_that_method_alone(sweep):
    code, out, calls = sweep.run("--recipe", "dapt", "coop", "--fresh-processes", FAKE_FAIL="/DAPT", FAKE_HOW="missing")
    assert code == 2 and out.count("not at home") == 1, out
    assert len([call for call in calls if call.startswith("CoOp")]) == 3
    assert len([call for call in calls if call.startswith("DAPT")]) <= 2        # the second may have started beside it
    assert "CoOp" in out.partition("not at home")[0]


def test_a_run_that_another_process_makes_is_left_and_looked_at_again(sweep):
    process = sweep.start("--jobs", "1", "--fresh-processes", FAKE_FAIL="seed1", FAKE_HOW="held")
    process.communicate(timeout=60)
    assert process.returncode == 1
    calls = sweep.calls()
    assert calls[-2:] == [ZERO, SEEDS[0]] and calls.count(SEEDS[0]) == 2 and calls.count(SEEDS[1]) == 1
    assert sweep.run("--jobs", "1", "--fresh-processes")[0] == 0


def test_a_run_that_another_sweep_finishes_meanwhile_is_not_made_again(sweep):
    first = sweep.start("--fresh-processes", "--jobs", "1", "--seeds", "1", "2", FAKE_FAIL=SEEDS[0], FAKE_HOW="hang")
    sweep.until(lambda: len(sweep.facts()) == 2)
    other = Sweep(sweep.folder)
    other.log, other.facts_file = sweep.folder / "others", sweep.folder / "their_facts"
    other.environment |= {"FAKE_LOG": str(other.log), "FAKE_FACTS": str(other.facts_file)}
    assert other.run("--fresh-processes", "--seeds", "2")[0] == 0
    os.kill(sweep.facts()[1]["pid"], signal.SIGTERM)
    out, _ = first.communicate(timeout=60)
    assert sweep.calls() == [ZERO, SEEDS[0]] and "seed 2: 92.0 %, made elsewhere" in out, out
