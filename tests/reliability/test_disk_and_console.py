"""A disk that is full, read-only or away, and a console that nobody reads: one paragraph or none, never a traceback."""
import errno
import io
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from dassl.engine.hooks.scalars import Scalars
from dassl.files.whole import write_whole
from tools import command, train
from tools.running import console

ROOT = Path(__file__).resolve().parents[2]
RUN = ["--trainer", "CoOp", "--seed", "1", "--config-file", "configs/trainers/CoOp/tiny.yaml",
       "--dataset-config-file", "configs/datasets/digits.yaml", "DATASET.NUM_SHOTS", "2", "OPTIM.MAX_EPOCH", "2",
       "DATALOADER.TRAIN_X.BATCH_SIZE", "4", "TRAIN.CHECKPOINT_SECONDS", "1e-9", "TRAIN.CHECKPOINT_FREQ", "1",
       "TEST.SPLIT", "val"]                                        # of 20 images


def words(folder):
    return ["--output-dir", str(folder), *RUN]


@pytest.fixture
def full_disk(monkeypatch):
    """full_disk(text): from now on nothing can be written to files whose name holds the text; full_disk("") ends it."""
    texts, write, fsync = [""], os.write, os.fsync

    def refused(number):
        name = os.readlink(f"/proc/self/fd/{number}")
        return texts[0] and re.search(texts[0], name)

    def guarded(function):
        def call(number, *args):
            if refused(number):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return function(number, *args)
        return call

    monkeypatch.setattr(os, "write", guarded(write))
    monkeypatch.setattr(os, "fsync", guarded(fsync))

    def arrange(text):
        texts[0] = text
    return arrange


def told(capsys):
    err = capsys.readouterr().err
    assert "Traceback" not in err and "Logging error" not in err
    return err.strip().splitlines()[-1]


def files_are_whole(folder):
    for path in folder.rglob("*"):
        assert not path.name.endswith(".part") and not path.name.startswith("run.lock"), path
        if ".pth.tar" in path.name:
            torch.load(path, weights_only=True)
        elif path.suffix == ".json":
            json.loads(path.read_text())


@pytest.mark.parametrize("name", ["config.yaml", "model.pth.tar-2", "results.json", "predictions.csv"])
def test_a_full_disk_is_one_paragraph_and_the_same_command_ends_the_run(name, full_disk, tmp_path, capsys):
    full_disk(f"{tmp_path}/.*{re.escape(name)}")
    assert train.cli(words(tmp_path)) == 2
    last = told(capsys)
    assert last.startswith(f"The disk of {tmp_path} is full (No space left on device). Free some space and run ")
    assert ("resumes" in last) is (name != "config.yaml")
    assert not (tmp_path / "results.json").exists()
    files_are_whole(tmp_path)
    full_disk("")
    assert train.cli(words(tmp_path)) == 0 and (tmp_path / "results.json").exists()


def test_a_disk_that_is_full_for_a_while_loses_logs_and_checkpoints_between_but_not_the_run(full_disk, tmp_path, capsys,
                                                                                          caplog):
    full_disk(f"{tmp_path}/.*(log.txt|resume.pth.tar|model.pth.tar-1)")
    assert train.cli(words(tmp_path)) == 0
    assert "could not be saved" in caplog.text and "No checkpoint of epoch 1" in caplog.text
    assert capsys.readouterr().err.count("log.txt cannot be written (No space left on device)") == 1
    assert json.loads((tmp_path / "results.json").read_text())["finished"]


def test_curves_that_cannot_be_written_are_told_once(tmp_path, caplog, capsys):
    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    curves = Scalars(str(tmp_path / "tensorboard"))
    curves._writer.file_writer.event_writer._async_writer._writer.write = fail
    deadline = time.monotonic() + 10
    while curves._writer is not None and time.monotonic() < deadline:
        curves.add_scalar("x", 1.0, 1)
    curves.add_scalar("x", 2.0, 2)
    curves.close()
    assert caplog.text.count("No more curves for TensorBoard") == 1 and "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(("error", "words"), [
    (OSError(errno.EROFS, "Read-only file system", "/out/run/log.txt"), "/out/run/log.txt .*--output-dir"),
    (PermissionError(errno.EACCES, "Permission denied", "/out"), "/out .*--output-dir"),
    (NotADirectoryError(errno.ENOTDIR, "Not a directory", "/out/run"), r"/out/run .*\(Not a directory\)"),
    (OSError(errno.ESTALE, "Stale file handle", "/out/run/x"), "/out/run/x .*same command"),
    (OSError(errno.ENOSPC, "No space left on device"), "The disk of /out/run is full.*same command"),
    (OSError(errno.ENOSPC, "No space left on device", "/data/list.json"), "disk of /data/list.json is full")])
def test_faults_of_the_run_folder_are_told_with_the_way_out(error, words):
    assert re.search(words, command.refused(error, "/out/run"))


@pytest.mark.parametrize("error", [
    FileNotFoundError(errno.ENOENT, "No such file", "/elsewhere/x"), ConnectionResetError(errno.ECONNRESET, "reset"),
    PermissionError(errno.EACCES, "Permission denied", "/out/runner/x"), OSError("no number")])
def test_other_faults_keep_their_traceback(error):
    assert command.refused(error, "/out/run") == ""


def test_a_file_where_the_run_folder_should_be_is_told(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert train.cli(words(tmp_path / "file" / "run")) == 2
    assert f"{tmp_path / 'file' / 'run'} cannot be read or written (Not a directory)" in told(capsys)


def test_a_run_folder_that_is_removed_meanwhile_is_made_anew_with_all_that_a_run_leaves(tmp_path, monkeypatch, capsys):
    from trainers._base import PromptTrainer

    folder, step, taken = tmp_path / "run", PromptTrainer.forward_backward, []

    def removed(self, batch):
        taken.append(batch)
        if len(taken) == 4:
            shutil.rmtree(folder)
        return step(self, batch)

    monkeypatch.setattr(PromptTrainer, "forward_backward", removed)
    assert train.cli(words(folder)) == 0
    assert {"results.json", "inputs.json", "config.yaml", "log.txt", "predictions.csv", "prompt_learner"} <= \
        {path.name for path in folder.iterdir()}
    assert (folder / "log.txt").read_text().startswith("The run folder was removed during the run")
    files_are_whole(folder)


def test_a_console_that_nobody_reads_to_its_end_does_not_end_the_run(tmp_path, forked):
    reader, writer = os.pipe()

    def run():
        os.close(reader)
        for number in (1, 2):
            os.dup2(writer, number)
        sys.stdout = sys.__stdout__ = os.fdopen(1, "w")
        sys.stderr = sys.__stderr__ = os.fdopen(2, "w")
        return train.cli(words(tmp_path))

    code = forked(run)
    os.close(writer)
    assert os.read(reader, 1)
    os.close(reader)                                               # as `| head -c 1` does
    assert code() == 0
    assert json.loads((tmp_path / "results.json").read_text())["finished"]
    assert "* accuracy" in (tmp_path / "log.txt").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("streams", [subprocess.DEVNULL, subprocess.STDOUT])
def test_a_process_whose_console_nobody_reads_to_its_end_ends_well(tmp_path, streams):
    process = subprocess.Popen([sys.executable, "tools/train.py", *words(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE,
                               stderr=streams, env={**os.environ, "OMP_NUM_THREADS": "1"})
    with process:
        assert process.stdout.read(1)
        process.stdout.close()                                     # as `| head -c 1` does
        assert process.wait(120) == 0
    assert json.loads((tmp_path / "results.json").read_text())["finished"]
    assert "* accuracy" in (tmp_path / "log.txt").read_text()


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_letters_that_a_console_lacks_are_escaped_and_the_run_goes_on(encoding, monkeypatch, capsys):
    own = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="\n")
    for name in ("stdout", "stderr", "__stdout__", "__stderr__"):
        monkeypatch.setattr(sys, name, own)
    for around in (console.patient, console.escaping):
        with around():
            print("квадрат", "caf\udce9")
    assert command.ended(lambda: print("三角形")) == 0
    own.flush()
    text = own.buffer.getvalue().decode(encoding)
    assert text == "\\u043a\\u0432\\u0430\\u0434\\u0440\\u0430\\u0442 caf\\udce9\n" * 2 + "\\u4e09\\u89d2\\u5f62\n"
    assert sys.stdout is own


def test_a_command_whose_output_has_no_place_says_so_once(monkeypatch, capsys):
    with open("/dev/full", "w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert command.ended(lambda: print("a table")) == 2
    assert "The disk of /dev/full is full (No space left on device)" in told(capsys)
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", encoding="utf-8") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        assert command.ended(lambda: print("a table")) == 141
    assert capsys.readouterr().err == ""


def test_a_whole_file_that_cannot_be_written_is_named(full_disk, tmp_path):
    full_disk(f"{tmp_path}/.*")
    with pytest.raises(OSError, match=re.escape(str(tmp_path / "a.json"))) as caught:
        write_whole(tmp_path / "a.json", "{}")
    assert caught.value.errno == errno.ENOSPC and not list(tmp_path.iterdir())


def test_streams_are_given_back_and_answer_for_the_ones_behind_them():
    before = sys.stdout, sys.stderr, sys.__stdout__
    with console.patient():
        assert sys.stdout is not before[0] and sys.stdout.isatty() == before[0].isatty()
    assert (sys.stdout, sys.stderr, sys.__stdout__) == before


def test_jumps_of_the_clock_change_no_result(tmp_path, monkeypatch):
    assert train.cli(words(tmp_path / "steady")) == 0
    clock, jumps = time.time, itertools.cycle(range(-30, 31))
    monkeypatch.setattr(time, "time", lambda: clock() + 86400 * (7 * next(jumps) % 30))           # days, to and fro
    assert train.cli(words(tmp_path / "jumping")) == 0
    one, two = (torch.load(tmp_path / name / "prompt_learner" / "model.pth.tar-2", weights_only=True)["state_dict"]
                for name in ("steady", "jumping"))
    assert all(torch.equal(one[key], two[key]) for key in one)
    seconds = json.loads((tmp_path / "jumping" / "results.json").read_text())["seconds"]
    assert all(0 <= value < 600 for value in seconds.values())


def test_a_run_whose_output_went_to_a_file_before_a_pipe_took_its_place_still_prints(tmp_path, monkeypatch):
    """As in a run that a sweep forks: sweep ... > log."""
    read, write = os.pipe()
    with open(tmp_path / "log", "w", encoding="ascii") as stream:
        os.dup2(write, stream.fileno())
        monkeypatch.setattr(sys, "stdout", stream)
        with console.patient():
            print("caf\u00e9", flush=True)
    os.close(write)
    with open(read, "rb") as pipe:
        assert pipe.read() == b"caf\\xe9\n"
