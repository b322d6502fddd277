"""run.lock: one process per run folder, whose owner is named; a dead owner's lock is taken over by exactly one."""
import dataclasses
import json
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from dassl.utils import UserError, run_lock, stop
from dassl.utils.run_lock import FILE, FolderInUse, Owner, RunLock, owner_of
from tools import train

FORK = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(run_lock, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(run_lock, "WATCH_SECONDS", 0.5)


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


def write(folder, **changes) -> Path:
    path = folder / FILE
    path.write_text(json.dumps(dataclasses.asdict(dataclasses.replace(Owner.this_process(), **changes))))
    return path


def from_elsewhere(folder, age: float = 0.0) -> Path:
    """A lock of another machine, whose heartbeat is `age` seconds old."""
    path = write(folder, host="elsewhere", place="another boot", token="theirs")
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_a_second_process_is_told_the_owner_and_the_way_out(holder, tmp_path):
    with pytest.raises(FolderInUse) as refusal, RunLock(tmp_path):
        pass
    text = str(refusal.value)
    assert str(tmp_path) in text and f"kill {holder.pid}" in text and "--output-dir" in text
    owner = owner_of(tmp_path)
    assert owner.pid == holder.pid and owner.user in text and owner.host in text and owner.command in text


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
    assert owner_of(tmp_path) is None
    with RunLock(tmp_path) as lock:
        assert lock.taken_over_from.pid == holder.pid
        assert owner_of(tmp_path).pid == os.getpid()
    assert not list(tmp_path.iterdir())


def test_a_killed_process_that_its_parent_has_not_asked_for_yet_is_dead(holder, tmp_path):
    os.kill(holder.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while owner_of(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert owner_of(tmp_path) is None


def test_another_process_with_the_number_of_the_dead_one_is_not_the_owner(tmp_path):
    write(tmp_path, born="1")
    assert owner_of(tmp_path) is None


def test_a_heart_that_beats_elsewhere_is_alive_whatever_the_clocks_say(tmp_path):
    for age in (0, run_lock.STALE_SECONDS + 3600, -86400):          # now; both ways that a clock may have jumped
        path = from_elsewhere(tmp_path, age)
        stop = threading.Event()

        def beat(path=path, stop=stop):
            while not stop.wait(0.02):
                stat = path.stat()
                os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000))

        thread = threading.Thread(target=beat)
        thread.start()
        try:
            assert owner_of(tmp_path).host == "elsewhere"
        finally:
            stop.set()
            thread.join()


@pytest.mark.parametrize("age", [run_lock.STALE_SECONDS + 1, -86400])
def test_a_heart_that_stands_still_elsewhere_is_taken_over(tmp_path, age):
    from_elsewhere(tmp_path, age)
    with RunLock(tmp_path) as lock:
        assert lock.taken_over_from.host == "elsewhere"


def test_a_recent_beat_elsewhere_needs_no_watching(tmp_path, monkeypatch):
    monkeypatch.setattr(run_lock, "WATCH_SECONDS", 1e9)
    from_elsewhere(tmp_path)
    with pytest.raises(FolderInUse, match="elsewhere"):
        RunLock(tmp_path).__enter__()


def test_jumps_of_this_machines_clock_do_not_age_a_lock(tmp_path, monkeypatch):
    from_elsewhere(tmp_path)
    now = time.time()
    for jump in (1e9, -1e9):
        monkeypatch.setattr(time, "time", lambda jump=jump: now + jump)
        assert owner_of(tmp_path) is not None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1}', "\x00\xff"])
def test_a_damaged_lock_counts_by_its_age(tmp_path, content):
    path = tmp_path / FILE
    path.write_text(content)
    assert owner_of(tmp_path) is not None
    os.utime(path, (0, 0))
    with RunLock(tmp_path) as lock:
        assert lock.taken_over_from


def test_the_lock_is_released_after_errors_and_exits(tmp_path):
    for error in (ZeroDivisionError, KeyboardInterrupt, SystemExit):
        with pytest.raises(error), RunLock(tmp_path / "made" / "here"):
            assert (tmp_path / "made" / "here" / FILE).exists()
            raise error
        assert not (tmp_path / "made" / "here" / FILE).exists()


def test_the_owner_beats(tmp_path):
    with RunLock(tmp_path) as lock:
        os.utime(lock.path, (0, 0))
        deadline = time.monotonic() + 10
        while lock.path.stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert lock.path.stat().st_mtime > 0


def test_an_owner_that_slept_until_it_was_taken_over_knows_and_leaves_the_other_alone(tmp_path):
    with RunLock(tmp_path) as lock:
        path = from_elsewhere(tmp_path)
        deadline = time.monotonic() + 10
        while not lock.lost and time.monotonic() < deadline:
            time.sleep(0.01)
        assert lock.lost
        with pytest.raises(UserError, match="is in use by process .* on elsewhere.*ends without writing"):
            stop.check(after_saving=False)
    stop.check()
    assert json.loads(path.read_text())["host"] == "elsewhere"


def test_without_hard_links_the_lock_is_one_persons_too(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with RunLock(tmp_path):
        with pytest.raises(FolderInUse):
            RunLock(tmp_path).__enter__()
        assert owner_of(tmp_path).pid == os.getpid()
    assert not list(tmp_path.iterdir())


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
    tries, racers = 10, 4
    for attempt in range(tries):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        write(folder, born="1", token="dead")
        start, results = FORK.Barrier(racers, timeout=20), FORK.Queue()
        processes = [FORK.Process(target=_race, args=(folder, start, results)) for _ in range(racers)]
        for process in processes:
            process.start()
        outcome = sorted(results.get(timeout=20) for _ in processes)
        for process in processes:
            process.join()
        assert outcome == ["held"] + ["refused"] * (racers - 1)
        assert not list(folder.iterdir())
