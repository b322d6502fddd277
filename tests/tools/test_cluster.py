"""Sweeps as jobs of submitit: what Slurm is asked for, what a repeated command knows, and real jobs on this machine."""
import argparse
import dataclasses
import json
import os
import pickle
import re
import signal
import sys
import time
from pathlib import Path

import pytest

from tools import sweep
from tools.sweeping import cells, cluster, cluster_slurm
from tools.sweeping.outcome import Outcome, report

pytest.importorskip("submitit")
ROOT = Path(__file__).resolve().parents[2]
SMALL = ("--recipe", "coop", "--datasets", "digits", "--shots", "1", "--seeds", "1", "2")


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A Slurm that holds every job until the test says otherwise; its folder."""
    state, commands = tmp_path / "slurm", tmp_path / "bin"
    state.mkdir()
    commands.mkdir()
    for name in ("sbatch", "srun", "squeue", "sinfo"):
        fake = f"{sys.executable} {ROOT}/tests/tools/fake_slurm.py {name}"
        (commands / name).write_text(f"#!/bin/sh\nexec {fake} \"$@\"\n")
        (commands / name).chmod(0o755)
    for name, value in (("FAKE_SLURM", state), ("FAKE_SLURM_HOLDS", "1"), ("PYTHONPATH", ""),
                        ("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")):
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(cluster_slurm, "_POLL_SECONDS", 0.3)
    return state


def _sweep(tmp: Path, *words: str) -> int:
    return sweep.main([*SMALL, "--output", str(tmp / "output"), *words, "OPTIM.MAX_EPOCH", "2", "USE_CUDA", "False"])


def test_slurm_is_asked_for_an_array_with_time_memory_and_requeue(slurm, tmp_path, capsys):
    assert _sweep(tmp_path / "short", "--launcher", "slurm", "--no-wait", "--time", "1") == 0
    script, = slurm.glob("*.sh")
    assert "signal=USR2@10" in script.read_text()
    script.unlink()
    assert _sweep(tmp_path, "--launcher", "slurm", "--no-wait", "--time", "1-02:30:00", "--mem", "12", "--jobs", "2",
                  "--partition", "gpu", "--account", "me", "--gpus-per-cell", "2", "--slurm", "exclude=node7") == 0
    script, = slurm.glob("*.sh")
    flags = re.findall(r"^#SBATCH --(.+)$", script.read_text(), re.MULTILINE)
    assert {"array=0-2%2", "time=1590", "mem=12GB", "partition=gpu", "account=me", "gpus-per-node=2", "exclude=node7",
            "requeue", "signal=USR2@90", "open-mode=append"} <= set(flags)
    assert f'export PYTHONPATH="{ROOT}' in script.read_text()
    said = capsys.readouterr().out
    assert "3 runs: 3 pending." in said and "at a time" not in said and "each is a job" in said


def test_the_command_again_shows_the_queue_and_submits_only_what_slurm_has_lost(slurm, tmp_path, capsys):
    command = ("--launcher", "slurm", "--no-wait")
    _sweep(tmp_path, *command)
    (slurm / "100_1.job").write_text("RUNNING")
    capsys.readouterr()
    _sweep(tmp_path, *command)
    assert "3 runs: 2 pending, 1 running." in capsys.readouterr().out and len(list(slurm.glob("*.sh"))) == 1
    (slurm / "100_1.job").unlink()                      # killed: not in the queue, no exit code, no result
    _sweep(tmp_path, *command)
    assert "3 runs: 3 pending." in capsys.readouterr().out
    assert len(list(slurm.glob("*.sh"))) == 2 and (slurm / "101.job").exists()


def test_what_failed_by_itself_is_told_and_not_submitted_until_asked_for(slurm, tmp_path, capsys):
    command = ("--launcher", "slurm", "--no-wait")
    _sweep(tmp_path, *command)
    code, = (tmp_path / "output" / ".jobs" / "slurm").glob("digits+CoOp*seed2.json")
    code.with_suffix(".code").write_text("1\n")
    (slurm / f"{json.loads(code.read_text())['job']}.job").unlink()
    capsys.readouterr()
    _sweep(tmp_path, *command)
    said = capsys.readouterr().out
    assert "2 pending, 1 failed (exit code 1)." in said and "failed (exit code 1): CoOp digits 1 shot seed 2" in said
    assert len(list(slurm.glob("*.sh"))) == 1
    _sweep(tmp_path, *command, "--force")
    assert "3 runs: 3 pending." in capsys.readouterr().out


@pytest.mark.parametrize("words", [("base2new",), ("matrix", "--datasets", "digits", "shapes")])
def test_what_tests_or_starts_from_learned_prompts_waits_for_the_array_that_learns_them(words, slurm, tmp_path):
    assert _sweep(tmp_path, "--launcher", "slurm", "--no-wait", "--protocol", *words) == 0
    texts = [path.read_text() for path in sorted(slurm.glob("*.sh"))]
    assert len(texts) == 2 and "--dependency" not in texts[0] and "--dependency=afterany:100" in texts[1]


def test_arrays_of_one_command_follow_each_other_where_jobs_bounds_them(slurm, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster_slurm, "MOST_IN_AN_ARRAY", 1)
    halves = ("--jobs", "1", "--protocol", "base2new")
    for output, words, follows in (("free", (), ["", "", ""]), ("bound", ("--jobs", "1"), ["", "103", "103:104"]),
                                   ("halves", halves, [":".join(map(str, range(106, n))) for n in range(106, 112)])):
        for path in slurm.glob("*.job"):
            path.unlink()
        before = set(slurm.glob("*.sh"))
        assert _sweep(tmp_path / output, "--launcher", "slurm", "--no-wait", *words) == 0
        texts = [path.read_text() for path in sorted(set(slurm.glob("*.sh")) - before)]
        found = [re.search(r"--dependency=afterany:([\d:]+)$", text, re.MULTILINE) for text in texts]
        assert [match[1] if match else "" for match in found] == follows


@pytest.mark.parametrize("words", [("--time", "60"), ("--gpus-per-cell", "0"), ("--mem", "8"), ("--partition", "gpu"),
                                   ("--cpus-per-cell", "2"), ("--slurm", "a=b")])
def test_flags_that_would_do_nothing_are_refused(words, tmp_path, capsys):
    assert _sweep(tmp_path, *words) == 2
    assert f"{words[0]} belongs to --launcher slurm" in capsys.readouterr().err and not (tmp_path / "output").exists()


@pytest.mark.parametrize("words", [("--jobs-per-gpu", "2"), ("--fresh-processes",)])
def test_flags_of_runs_on_this_machine_are_refused_for_jobs(words, slurm, tmp_path, capsys):
    assert _sweep(tmp_path, "--launcher", "slurm", *words) == 2
    assert f"{words[0]} is for runs on this machine" in capsys.readouterr().err and not (tmp_path / "output").exists()


@pytest.mark.parametrize("words", [("--gpus-per-cell", "-1"), ("--cpus-per-cell", "0"), ("--mem", "-1")])
def test_negative_sizes_of_a_job_are_refused(words, tmp_path, capsys):
    with pytest.raises(SystemExit):
        _sweep(tmp_path, "--launcher", "slurm", *words)
    assert f", got '{words[1]}'" in capsys.readouterr().err


def test_without_slurm_nothing_is_written_and_the_way_out_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert _sweep(tmp_path, "--launcher", "slurm") == 2
    assert "needs Slurm's sbatch, squeue, srun" in capsys.readouterr().err and not (tmp_path / "output").exists()
    assert _sweep(tmp_path, "--no-wait") == 2
    assert "--no-wait belongs to --launcher slurm" in capsys.readouterr().err


@pytest.mark.parametrize("text, minutes", [("90", 90), ("4:00:00", 240), ("1-00:30:01", 1471), ("0", 1)])
def test_times_are_minutes_or_as_slurm_writes_them(text, minutes):
    assert cluster._minutes(text) == minutes
    with pytest.raises(argparse.ArgumentTypeError, match="4:00:00"):
        cluster._minutes("4 hours")


def test_runs_on_several_gpus_go_through_torchrun_unless_their_trainer_cannot():
    assert cluster.command(["--seed", "1"], "CoOp", 1) == cells.train_command(["--seed", "1"])
    together = cluster.command(["--seed", "1"], "CoOp", 4)
    assert together[1:6] == ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "4"]
    assert together[6:] == cells.train_command(["--seed", "1"])[1:]
    assert cluster.command(["--seed", "1"], "of_a_plugin", 4) == together
    for alone in ("LinearProbe", "ZeroshotCLIP"):
        assert cluster.command(["--seed", "1"], alone, 4) == cells.train_command(["--seed", "1"])


@pytest.fixture
def planned(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "")
    flags, options = sweep.split_options([*SMALL[:-1], "USE_CUDA", "False", "OPTIM.MAX_EPOCH", "60",
                                          "TRAIN.CHECKPOINT_FREQ", "1"])
    cell = sweep.plan(sweep.parser().parse_args(flags), options)[-1]
    cluster.add_to_path()
    return cells.Planned(cell, str(ROOT / "data"), str(tmp_path / "output"))


def test_a_run_whose_process_is_gone_is_not_called_running(planned):
    from dassl.utils import run_lock

    with run_lock.RunLock(planned.folder):
        assert "1 running" in cluster_slurm.state_table([planned], {})
    (planned.folder / run_lock.FILE).touch()            # what a killed owner leaves
    (planned.folder / run_lock.OWNER).write_text("process 1")
    assert cluster_slurm.state_table([planned], {}) == "1 runs: 1 not submitted."
    assert cluster_slurm.state_table([planned], {planned.cell.folder: "waiting"}) == "1 runs: 1 waiting."


def test_notes_of_runs_with_long_names_fit_a_file_name_and_differ(planned, tmp_path):
    notes, names = cluster_slurm._Notes(tmp_path / "notes"), set()
    for seed in (1, 2):
        planned.cell = dataclasses.replace(planned.cell, dataset="é" * 100, config="c" * 150, seed=seed)
        notes.write(planned, f"{seed}_0")
        assert notes.job(planned) == f"{seed}_0"
        names.add(notes.path(planned, "code").name)
    assert len(names) == 2


def test_a_job_that_submitit_has_given_up_ran_out_of_time(planned, tmp_path):
    notes, outcome = cluster_slurm._Notes(tmp_path / "notes"), Outcome()
    notes.write(planned, "7_0")
    (notes.folder / "7_0_0_log.err").write_text("UncompletedJobError: Job not requeued because: timed-out too many "
                                                "times.\n")
    cluster_slurm._settle(planned, None, {"7_0": "failed"}, notes, outcome)
    assert [lines for *_, lines in outcome.failed] == [["Slurm's job 7_0: out of time 21 times; --time raises the "
                                                        "limit."]]


def test_a_log_that_was_never_written_is_not_named(planned):
    said = report(Outcome([(planned, 1, ["cancelled"])]))
    assert said.splitlines() == [f"{planned.name} failed:", "  cancelled"]
    planned.folder.mkdir(parents=True)
    (planned.folder / "log.txt").touch()
    assert "log.txt and ends:" in report(Outcome([(planned, 1, ["cancelled"])]))


def test_a_requeued_forced_job_replaces_the_former_run_but_never_its_own(planned):
    from tools.runs import inputs

    description = planned.folder / inputs.FILE
    description.parent.mkdir(parents=True)
    description.write_text("{}")
    job = cluster.Job(planned, force=True)
    assert pickle.loads(pickle.dumps(job)).forced and job.checkpoint().function.forced
    os.utime(description, (1, 1))                       # the run has described itself
    assert not pickle.loads(pickle.dumps(job)).forced


@pytest.mark.parametrize("state, warned", [("COMPLETING", False), ("RUNNING", True), ("", False)])
def test_a_job_whose_run_was_asked_to_end_reports_nothing_and_requeues_itself_if_slurm_does_not(
        state, warned, slurm, planned, tmp_path, monkeypatch):
    (tmp_path / "bin" / "squeue").write_text(f"#!/bin/sh\necho {state}\n")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    code, warnings = tmp_path / "code", []
    code.write_text("143")                              # of the job before it was requeued
    job = cluster.Job(planned, code=code)
    monkeypatch.setattr(job, "_run", lambda: 143)
    former = signal.signal(signal.SIGUSR2, lambda *_: warnings.append(1))
    try:
        with pytest.raises(SystemExit) as end:
            job()
    finally:
        signal.signal(signal.SIGUSR2, former)
    assert end.value.code == 143 and not code.exists() and bool(warnings) == warned


def test_a_requeued_run_is_pending_whatever_its_note_says(slurm, tmp_path, capsys):
    command = ("--launcher", "slurm", "--no-wait")
    _sweep(tmp_path, *command)
    for note in (tmp_path / "output" / ".jobs" / "slurm").glob("*.json"):
        note.with_suffix(".code").write_text("143\n")
    capsys.readouterr()
    _sweep(tmp_path, *command)
    assert "3 runs: 3 pending." in capsys.readouterr().out and len(list(slurm.glob("*.sh"))) == 1


@pytest.mark.parametrize("words, said", [
    ((), "The partition cpu has no GPUs, and every run would ask for 1"),
    (("--gpus-per-cell", "2"), "--partition takes one with GPUs: gpu."),
    (("--slurm", "partition=gpu", "--gpus-per-cell", "5"), "The partition gpu has at most 4 GPUs in a node"),
    (("--partition", "cpu,gpu"), ""), (("--partition", "new"), ""), (("--gpus-per-cell", "0"), "")])
def test_gpus_that_the_partition_does_not_have_are_not_asked_for(words, said, slurm, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FAKE_SLURM_HAS_GPUS_ASIDE", "1")
    code = sweep.main([*SMALL, "--output", str(tmp_path / "output"), "--launcher", "slurm", "--no-wait", *words])
    assert said in capsys.readouterr().err and code == (2 if said else 0)
    assert (tmp_path / "output").exists() == (not said)


@pytest.mark.slow
def test_a_job_that_must_end_has_its_run_go_on_where_it_was(planned, tmp_path):
    executor = cluster.executor("local", tmp_path / "jobs")
    executor.update_parameters(timeout_min=5)
    job = executor.submit(cluster.Job(planned))
    end = time.monotonic() + 60
    while not list(planned.folder.glob("*/checkpoint")) and time.monotonic() < end:
        time.sleep(0.05)
    children = Path(f"/proc/{job.job_id}/task/{job.job_id}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGUSR2)           # as Slurm warns of a pre-emption
    assert job.result() == 0
    planned.look()
    assert planned.state == "finished"
    first, second = sorted(planned.folder.glob("log.txt*"), key=lambda path: path.stat().st_mtime)
    assert "Resumed from" not in first.read_text() and "Resumed from" in second.read_text()
    epochs = [int(line.split("[")[1].split("/")[0]) for line in second.read_text().splitlines()
              if line.startswith("epoch [")]
    assert epochs[0] > 1 and epochs[-1] == 60


@pytest.mark.slow
def test_a_sweep_of_jobs_ends_with_the_table(slurm, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("FAKE_SLURM_HOLDS")
    monkeypatch.setattr("tools.sweeping.cluster_slurm._POLL_SECONDS", 0.5)
    words = ("--launcher", "slurm", "--seeds", "1")
    assert _sweep(tmp_path, *words, "--jobs", "2", "--gpus-per-cell", "2") == 0
    assert "1/1" in capsys.readouterr().out
    records = [json.loads(path.read_text()) for path in (tmp_path / "output").glob("digits/*/*/seed*/results.json")]
    assert sorted((r["trainer"], r["world_size"]) for r in records) == [("CoOp", 2), ("ZeroshotCLIP", 1)]
    assert _sweep(tmp_path, *words) == 0
    assert "All 2 results exist already" in capsys.readouterr().out
