"""run.lock: one process per run folder, whose owner is named; a dead owner's lock is taken over by exactly one."""
import multiprocessing
import os
import signal
import socket
import time

import pytest

from dassl.utils.run_lock import FILE, OWNER, FolderInUse, RunLock, owner_of
from tools import train

FORK = multiprocessing.get_context("fork")


def _hold(folder, held):
    with RunLock(folder):
        held.set()
        time.sleep(60)


@pytest.fixture
def holder(tmp_path):
    """A process that holds tmp_path."""
    held = FORK.Event()
    process = FORK.Process(target=_hold, args=(tmp_path, held))
    process.start()
    assert held.wait(20)
    yield process
    process.kill()
    process.join()


def left_by_dead_owner(folder) -> None:
    folder.mkdir(exist_ok=True)
    (folder / FILE).touch()
    (folder / OWNER).write_text("process 1 of somebody")


def test_a_second_process_is_told_the_owner_and_the_way_out(holder, tmp_path):
    with pytest.raises(FolderInUse) as refusal, RunLock(tmp_path):
        pass
    text = str(refusal.value)
    assert str(tmp_path) in text and f"process {holder.pid} of " in text and "--output-dir" in text
    assert owner_of(tmp_path) in text and f" on {socket.gethostname()}, since 20" in text


def test_training_in_a_held_folder_ends_with_code_2_and_changes_nothing_there(holder, tmp_path, capsys):
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    code = train.cli(["--trainer", "CoOp", "--config-file", "configs/trainers/CoOp/tiny.yaml", "--output-dir",
                      str(tmp_path), "--dataset-config-file", "configs/datasets/digits.yaml"])
    err = capsys.readouterr().err
    assert code == 2 and f"process {holder.pid} of" in err and len(err.strip().splitlines()) == 1
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_sweep_hears_of_a_held_folder_by_a_code_of_its_own(holder, tmp_path, monkeypatch):
    monkeypatch.setenv(train.SWEEP, "resume")
    assert train.cli(["--trainer", "CoOp", "--config-file", "configs/trainers/CoOp/tiny.yaml", "--output-dir",
                      str(tmp_path), "--dataset-config-file", "configs/datasets/digits.yaml"]) == train.IN_USE == 75


def test_the_lock_of_a_killed_process_is_taken_over(holder, tmp_path):
    holder.kill()
    holder.join()
    assert owner_of(tmp_path) == ""
    with RunLock(tmp_path) as lock:
        assert lock.taken_over_from.startswith(f"process {holder.pid} of ")
        assert owner_of(tmp_path).startswith(f"process {os.getpid()} of ")
    assert not list(tmp_path.iterdir())


def test_a_killed_process_that_its_parent_has_not_asked_for_yet_is_dead(holder, tmp_path):
    os.kill(holder.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while owner_of(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert owner_of(tmp_path) == ""


def _hold_with_worker(folder, pids):
    with RunLock(folder):
        worker = FORK.Process(target=time.sleep, args=(60,))
        worker.start()
        pids.put(worker.pid)
        time.sleep(60)


def test_a_worker_that_outlives_its_killed_parent_does_not_keep_the_lock(tmp_path):
    pids = FORK.Queue()
    process = FORK.Process(target=_hold_with_worker, args=(tmp_path, pids))
    process.start()
    worker = pids.get(timeout=20)
    assert owner_of(tmp_path).startswith(f"process {process.pid} of ")
    process.kill()
    process.join()
    try:
        os.kill(worker, 0)
        assert owner_of(tmp_path) == ""
    finally:
        os.kill(worker, signal.SIGKILL)


@pytest.mark.parametrize("content", [b"", b"\n", b"\x00\xff"])
def test_a_damaged_name_of_the_owner_is_no_lock(tmp_path, content):
    (tmp_path / OWNER).write_bytes(content)
    assert owner_of(tmp_path) == ""
    with RunLock(tmp_path) as lock:
        assert lock.taken_over_from and len(lock.taken_over_from.splitlines()) == 1


def test_asking_for_the_owner_of_a_folder_that_was_just_released_leaves_no_file(tmp_path):
    (tmp_path / FILE).touch()
    assert owner_of(tmp_path) == "" and not list(tmp_path.iterdir())


def test_the_lock_is_released_after_errors_and_exits(tmp_path):
    for error in (ZeroDivisionError, KeyboardInterrupt, SystemExit):
        with pytest.raises(error), RunLock(tmp_path / "made" / "here"):
            assert (tmp_path / "made" / "here" / FILE).exists()
            raise error
        assert not (tmp_path / "made" / "here" / FILE).exists()


def _race(folder, start, results):
    start.wait()
    try:
        with RunLock(folder):
            results.put("held")
            start.wait()                                  # until all have tried
    except FolderInUse:
        results.put("refused")
        start.wait()


def test_of_many_that_find_a_dead_lock_at_once_exactly_one_gets_it(tmp_path):
    tries, racers = 4, 4
    for attempt in range(tries):
        folder = tmp_path / str(attempt)
        left_by_dead_owner(folder)
        start, results = FORK.Barrier(racers, timeout=20), FORK.Queue()
        processes = [FORK.Process(target=_race, args=(folder, start, results)) for _ in range(racers)]
        for process in processes:
            process.start()
        outcome = sorted(results.get(timeout=20) for _ in processes)
        for process in processes:
            process.join()
        assert outcome == ["held"] + ["refused"] * (racers - 1)
        assert not list(folder.iterdir())
