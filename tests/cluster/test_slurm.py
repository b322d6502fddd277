"""Sweeps on a real Slurm of one node: pre-emption, cancelling, limits of memory and time, outages.

    pytest -m slurm tests/cluster             as root on Debian; installs slurm-wlm where it is missing
"""
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from one_node import CPUS

from tools.runs.inputs import read_json

pytest.importorskip("submitit")
pytestmark = pytest.mark.slurm
ROOT = Path(__file__).resolve().parents[2]
LONG, SHORT = 60, 2                # epochs of 5 batches
# As tools/sweep.py, which looks at the queue more often.
SWEEP = ("import sys; from tools.sweeping import cluster_slurm; cluster_slurm._POLL_SECONDS = 0.5; "
         "from tools import sweep; sys.exit(sweep.main())")


class Sweeps:
    """Sweeps of CoOp on digits into one folder, so that its zero-shot run is made once; all are ended at last."""

    def __init__(self, folder: Path):
        self.folder, self.started = folder, []

    def start(self, *words, output: str = "output", epochs: int = LONG, launcher: tuple = ("--launcher", "slurm")):
        command = [sys.executable, "-c", SWEEP, "--recipe", "coop", "--datasets", "digits", "--shots", "16", "--output",
                   str(self.folder / output), *launcher, *map(str, words), "OPTIM.MAX_EPOCH", str(epochs), "USE_CUDA",
                   "False"]
        log = self.folder / f"{len(self.started)}.log"
        with open(log, "w") as file:
            process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT,
                                       env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
        process.log = log
        self.started.append(process)
        return process

    def run(self, *words, **options) -> str:
        """Output of one that ends well."""
        return ended(self.start(*words, **options))

    def run_folder(self, seed: int, epochs: int = LONG, output: str = "output") -> Path:
        return Path(self.folder, output, "digits", "CoOp", f"tiny_16shots-OPTIM.MAX_EPOCH={epochs},USE_CUDA=False",
                    f"seed{seed}")

    def job(self, seed: int, epochs: int = LONG) -> str:
        note, = Path(self.folder, "output", ".jobs", "slurm").glob(f"digits+CoOp*EPOCH={epochs},*seed{seed}.json")
        return read_json(note)["job"]


@pytest.fixture(scope="module")
def shared(node, tmp_path_factory):
    sweeps = Sweeps(tmp_path_factory.mktemp("sweeps"))
    sweeps.run("--seeds", 0, epochs=1, launcher=())
    yield sweeps
    for process in sweeps.started:
        process.kill()
        process.wait()


@pytest.fixture
def sweeps(shared, node):
    """No job of one test is there in the next."""
    yield shared
    node.slurm("scancel", "--user", "root")
    until("the queue is empty", lambda: not node.slurm("squeue", "-h"))


def ended(process, code: int = 0) -> str:
    assert process.wait(timeout=300) == code, process.log.read_text()
    return process.log.read_text()


def says(process, words: str) -> None:
    until(f"the sweep says {words}", lambda: words in process.log.read_text())


def until(what: str, true, seconds: float = 120):
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, f"{seconds} s, and it is not so that {what}"
        time.sleep(0.1)
    return found


def logs(folder: Path) -> str:
    return "".join(path.read_text() for path in sorted(folder.glob("log.txt*"), key=lambda path: path.stat().st_mtime))


def training(folder: Path, epoch: int = 5) -> None:
    until(f"{folder} has trained {epoch} epochs", lambda: f"epoch [{epoch}/" in logs(folder))


def resumed(folder: Path) -> list[tuple[int, int]]:
    """Finished epochs and batches where a run has resumed within its training."""
    place = rf"Resumed from {re.escape(str(folder))} after epoch (\d+) and (\d+) batches"
    return [(int(epoch), int(batch)) for epoch, batch in re.findall(place, logs(folder))]


def learned(folder: Path) -> list:
    """What a run has measured and, of every checkpoint, what it has learned."""
    states = [torch.load(path, weights_only=True)["state_dict"]
              for path in sorted(folder.glob("prompt_learner/model.pth.tar-*"))]
    assert states
    return [read_json(folder / "results.json")["metrics"], (folder / "predictions.csv").read_text(),
            [{name: value.numpy().tobytes() for name, value in state.items()} for state in states]]


def test_without_gpus_in_the_partition_the_way_out_is_named(sweeps):
    asked = sweeps.start("--gpus-per-cell", 1, output="none")
    assert "The partition low has no GPUs, and every run would ask for 1. --gpus-per-cell 0 (or USE_CUDA False)" in \
        ended(asked, 2)
    assert "--partition takes one with GPUs: gpus." in ended(sweeps.start("--gpus-per-cell", 4, output="none"), 2)
    assert "has at most 4 GPUs" in ended(
        sweeps.start("--partition", "gpus", "--gpus-per-cell", 5, output="none"), 2)
    assert not (sweeps.folder / "none").exists()
    assert "2 runs: 2 pending" in sweeps.run("--seeds", 1, "--no-wait", "--partition", "gpus", "--gpus-per-cell", 4,
                                             output="gpus")


def test_two_sweeps_at_once_submit_each_run_once(sweeps):
    both = [sweeps.start("--seeds", 1, 2, epochs=SHORT) for _ in range(2)]
    for said in map(ended, both):
        assert said.count("2/2") == 1
    scripts = [path.read_text() for path in sweeps.folder.glob("output/.jobs/slurm/*_submission.sh")]
    assert len(scripts) == 1 and "--array=0-1%" in scripts[0]


def test_a_preempted_run_resumes_at_its_last_batch_and_ends_with_the_same_bits(sweeps, node):
    """Slurm sends SIGTERM, SIGCONT and SIGTERM within milliseconds to every process of the job, and requeues it."""
    waiting, folder = sweeps.start("--seeds", 1), sweeps.run_folder(1)
    whole = sweeps.start("--seeds", 1, output="whole", launcher=())
    training(folder)
    node.slurm("sbatch", "--partition", "high", f"--cpus-per-task={CPUS}", "--mem=100", "--output=/dev/null",
               "--wrap", "sleep 1")
    job = sweeps.job(1)
    until("the job is requeued", lambda: node.slurm("squeue", "-h", "-j", job, "-o", "%T") == "PENDING")
    notes = sweeps.folder / "output" / ".jobs" / "slurm"
    assert not list(notes.glob(f"digits+CoOp*EPOCH={LONG},*.code")) and not list(notes.glob(f"{job}_*result.pkl"))
    assert waiting.poll() is None
    assert "1 pending" in sweeps.run("--seeds", 1, "--no-wait")
    said = ended(waiting)
    assert "1/1" in said and "failed" not in said
    (epoch, batch), = resumed(folder)
    assert f"Saved after epoch {epoch} and {batch} batches\nStopped" in logs(folder)
    ended(whole)
    assert learned(folder) == learned(sweeps.run_folder(1, output="whole"))


def test_a_cancelled_job_is_told_and_the_same_command_resumes_its_run(sweeps, node):
    waiting, folder = sweeps.start("--seeds", 2), sweeps.run_folder(2)
    training(folder)
    node.slurm("scancel", sweeps.job(2))
    said = ended(waiting, 1)
    assert f"Slurm's job {sweeps.job(2)}: cancelled; the same command submits the run again." in said
    assert "1/1" in sweeps.run("--seeds", 2)
    assert f"Resumed from {folder} after epoch" in logs(folder)


def test_a_job_beyond_its_memory_is_told_and_not_submitted_again_unasked(sweeps):
    words = ("--seeds", 4, "--mem", 0.1)
    said = ended(sweeps.start(*words), 1)
    assert f"Slurm's job {sweeps.job(4)}: out of memory; --mem GB raises the limit." in said
    assert "1 failed (out of memory; " in sweeps.run(*words, "--no-wait")


def test_a_sweep_waits_for_a_drained_node_and_for_slurmctld(sweeps, node):
    node.slurm("scontrol", "update", f"nodename={node.host}", "state=drain", "reason=test")
    sweeps.run("--seeds", 5, "--no-wait", epochs=SHORT)
    waiting = sweeps.start("--seeds", 5, epochs=SHORT)
    says(waiting, "0 of 1 runs done, 1 pending")
    node.slurm("scontrol", "update", f"nodename={node.host}", "state=resume")
    node.stop_controller()
    try:
        says(waiting, "Asking again until it answers")
    finally:
        node.start_controller()
    assert "1/1" in ended(waiting)


def test_a_run_outlasts_its_time_limit_and_warnings(sweeps, node):
    """Slurm's warning of the end of a job, three times, the first because its minute is over."""
    waiting, folder = sweeps.start("--seeds", 6, "--time", 1, epochs=8 * LONG), sweeps.run_folder(6, 8 * LONG)
    for times in range(1, 4):
        if times > 1:
            node.slurm("scancel", "--signal=USR2", sweeps.job(6, 8 * LONG))
        until("it has resumed", lambda times=times: len(resumed(folder)) == times)
    assert (1, 0) < resumed(folder)[0] <= resumed(folder)[1] <= resumed(folder)[2]
    waiting.send_signal(signal.SIGTERM)
    assert "1 jobs stay in Slurm's queue" in ended(waiting, 143)


def test_an_array_of_200_runs_is_submitted_once(sweeps, node):
    node.slurm("scontrol", "update", "partitionname=low", "state=down")
    words = ("--seeds", *range(100, 300), "--no-wait", "--jobs", 2)
    assert "201 runs: 1 finished, 200 pending (PartitionDown)." in sweeps.run(*words, epochs=SHORT)
    assert "201 runs: 1 finished, 200 pending (PartitionDown)." in sweeps.run(*words, epochs=SHORT)
    assert len(node.slurm("squeue", "-h", "--array").splitlines()) == 200
    node.slurm("scontrol", "update", "partitionname=low", "state=up")
