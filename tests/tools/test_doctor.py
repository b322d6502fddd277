"""The doctor finds what is wrong, says the way out, and its last line and exit code say whether anything works."""
import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tools import doctor
from tools.checkup import NOTE, OK, PROBLEM, Finding, holdings, machine, packages, training
from tools.runs.recipe import ROOT

WORKED = {"device": "cpu", "ms_per_step": 12.3, "accuracy": 88.0, "seconds": 2.0}


def findings_of(found, area):
    return [finding for finding in found if finding.area == area]


def test_a_machine_that_is_ready_ends_with_what_works_and_zero(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(training, "check", lambda: (Finding("training", "done"), WORKED))
    assert doctor.main(["--root", str(tmp_path)]) == 0
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.startswith("Works: training, testing and predicting on cpu, 12 ms a step") and "tiny" in last


def test_json_holds_every_finding_and_the_last_line(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(training, "check", lambda: (Finding("training", "no", PROBLEM, "do this"), {}))
    assert doctor.main(["--root", str(tmp_path), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    areas = {finding["area"] for finding in report["findings"]}
    assert {"Python", "GPU", "CPU", "memory", "disk", "weights", "datasets", "training"} <= areas
    assert not report["works"]
    assert report["summary"] == "Does not work yet: 1 problem (training), each with its way out above."
    assert all(finding["way_out"] for finding in report["findings"] if finding["state"] != OK)


def test_without_any_package_it_still_says_what_to_install(tmp_path):
    venv.create(tmp_path / "bare", with_pip=False, symlinks=True)
    python = next(path for path in (tmp_path / "bare").glob("*/python*") if path.name in ("python", "python.exe"))
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    reply = subprocess.run([python, "tools/doctor.py"], cwd=ROOT, capture_output=True, text=True, env=environment)
    assert reply.returncode == 1 and "Traceback" not in reply.stderr
    assert "lacks torch" in reply.stdout and "pip install -e" in reply.stdout
    assert reply.stdout.strip().splitlines()[-1].startswith("Does not work yet: 1 problem (Python)")


def test_a_gpu_that_pytorch_does_not_see_is_told(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(machine.Path, "exists", lambda self: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    finding, = machine.gpus()
    assert finding.state == NOTE and "CUDA_VISIBLE_DEVICES is ''" in finding.text
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr("torch.version.cuda", None)
    assert "is a build for CPUs" in next(machine.gpus()).text


def test_a_gpu_that_does_not_compute_is_a_problem(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda number: "Old GPU")

    def broken(number):
        raise RuntimeError("no kernel image is available\nfor this device")

    monkeypatch.setattr("torch.cuda.mem_get_info", broken)
    finding, = machine.gpus()
    assert finding.state == PROBLEM and "Old GPU does not compute (no kernel image is available)" in finding.text


def test_more_threads_than_cores_and_a_full_disk_are_notes(monkeypatch, tmp_path):
    monkeypatch.setattr("torch.get_num_threads", lambda: 10_000)
    assert machine.processor().state == NOTE and "OMP_NUM_THREADS" in machine.processor().way_out
    assert machine.room("runs", tmp_path / "not" / "there", PROBLEM).state == OK
    monkeypatch.setattr(machine, "_LITTLE_DISK", 2 ** 80)
    assert machine.room("runs", tmp_path, PROBLEM).state == NOTE


def test_a_folder_that_cannot_be_written_stops_runs_but_not_data(monkeypatch, tmp_path):
    def refuse(dir):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(machine.tempfile, "TemporaryFile", refuse)
    found = findings_of(machine.check({"runs": tmp_path, "datasets": tmp_path}), "disk")
    assert [finding.state for finding in found] == [PROBLEM, NOTE] and "Permission denied" in found[0].text


def test_weights_are_read_to_their_end(monkeypatch, tmp_path):
    monkeypatch.setenv("CLIP_CACHE", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    finding, = holdings.weights()
    assert finding.state == NOTE and "DASSL_OFFLINE" in finding.way_out
    (tmp_path / "RN50.pt").write_bytes(b"cut")
    damaged, _ = holdings.weights()
    assert damaged.state == PROBLEM and "RN50" in damaged.text and str(tmp_path / "RN50.pt") in damaged.way_out


def test_datasets_that_are_there_and_incomplete_ones_are_named(tmp_path):
    (tmp_path / "dtd").mkdir()
    none, incomplete = holdings.datasets(tmp_path)
    assert none.state == NOTE and "digits" in none.text and incomplete.text.startswith("dtd is incomplete")
    assert incomplete.way_out == "python tools/data.py get dtd"


def test_a_crash_and_a_refusal_of_the_training_are_findings(monkeypatch):
    monkeypatch.setattr(training, "_called", lambda folder, words: "signal 11")
    finding, measured = training.check("cpu")
    assert finding.state == PROBLEM and "training failed (signal 11)" in finding.text and not measured
    monkeypatch.setattr(training, "_called",
                        lambda folder, words: "code 1: no kernel image" if "True" in words else "")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(training, "check", lambda device: (Finding("training", "on the CPU"), WORKED))
    finding, measured = training._failed("training", "code 1", "auto")
    assert finding.state == NOTE and "the CPU does it" in finding.text and measured == WORKED


def test_packages_that_are_too_old_are_named(monkeypatch):
    sys.path.append(str(Path(ROOT, "scripts")))
    import _packages

    monkeypatch.setattr(_packages, "REQUIRES", ["torch>=99"])
    finding, = packages.check()
    assert finding.state == PROBLEM and "torch>=99 (has" in finding.text and "pip install -e" in finding.way_out


def test_a_container_is_told_its_share_of_cores_and_memory(monkeypatch):
    monkeypatch.setattr(machine, "cores", lambda: 3)
    monkeypatch.setattr(machine, "free_memory", lambda: 1 << 30)
    monkeypatch.setattr("torch.get_num_threads", lambda: 4)
    assert "OMP_NUM_THREADS=3" in machine.processor().way_out
    assert machine.memory().text == "1.0 GiB free" and machine.memory().state == NOTE


def test_on_a_terminal_one_line_says_what_is_being_done(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(training, "_called", lambda folder, words: "it broke")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert doctor.main(["--root", str(tmp_path)]) == 1
    line = capsys.readouterr().err
    assert "training DAPT for 100 steps" in line and "weights" in line
    assert "\n" not in line and line.endswith("\r\033[K")
    monkeypatch.undo()
    assert doctor.main(["--root", str(tmp_path), "--no-training"]) == 0 and capsys.readouterr().err == ""


@pytest.mark.slow
def test_the_small_training_goes_from_command_to_prediction_and_leaves_nothing(monkeypatch, tmp_path):
    for name in ("HOME", "XDG_CACHE_HOME", "TMPDIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    finding, measured = training.check("cpu")
    assert finding.state == OK and measured["accuracy"] > training.LEAST_ACCURACY and measured["ms_per_step"] > 0
    assert not list(tmp_path.iterdir())
