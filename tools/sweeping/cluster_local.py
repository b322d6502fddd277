"""--launcher local: the conductor of a plain sweep, whose runs are jobs of submitit on this machine."""
from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tools.inputs import read_json
from tools.recipes import RecipeError
from tools.sweeping import cluster
from tools.sweeping.conductor import Conductor
from tools.sweeping.slots import DEVICES, gpus

_POLL_SECONDS = 0.2
_LOST = -1                          # exit code of a job that ended without telling one


def run(args, planned: list, todo: list, places, times, argv: list[str]):
    """As `tools.sweeping.cluster.run`."""
    folder = Path(planned[0].output, cluster.FOLDER)
    if args.no_wait:
        return _in_background(folder, planned, todo, argv)
    wanted = cluster.gpus_per_cell(args, planned)
    if (n := wanted if args.gpus_per_cell else 1) > 1:
        places = _several_gpus_each(places, n)
    done = [p for p in planned if p not in todo]
    return _LocalConductor(folder / "local", cluster.minutes(args), n, todo, done, places, times, args.force).run()


def _several_gpus_each(places, n: int):
    from dataclasses import replace

    found = gpus()
    if len(found) < n:
        raise RecipeError(f"--gpus-per-cell {n} trains a run on {n} GPUs together; this machine shows {len(found)}.")
    groups = [",".join(found[i:i + n]) for i in range(0, len(found) - n + 1, n)][:len(places.devices)]
    return replace(places, devices=tuple(groups), words=f"{len(groups)} at a time on {n} GPUs each")


class _LocalConductor(Conductor):
    def __init__(self, folder: Path, minutes: int, processes: int, todo, done, places, times, force: bool):
        super().__init__(todo, done, places, times, force, fresh=True)
        self._executor = cluster.executor("local", folder)
        self._executor.update_parameters(timeout_min=minutes)
        self._processes, self._lock = processes, threading.Lock()

    def _process(self, p, arguments: list[str], environment: dict[str, str]):
        environment = {DEVICES: os.environ.get(DEVICES, ""), "DASSL_PROGRESS_SECONDS": "0.5", **environment}
        former = signal.signal(signal.SIGINT, signal.SIG_IGN)       # the job inherits it: the sweep tells it of Ctrl-C
        try:
            anew = self.force or (p.state == "new" and p.record is not None)
            return _JobRun(self._executor.submit(cluster.Job(p, self._processes, environment, anew)))
        finally:
            signal.signal(signal.SIGINT, former)


class _JobRun:
    """A job with the face of `tools.sweeping.launch.PlainRun`: what it writes, its end, and telling it to end."""

    def __init__(self, job):
        self._job, self._ended = job, threading.Event()
        self.stdout, self.stderr = (_Lines(path, self._ended) for path in (job.paths.stdout, job.paths.stderr))

    def wait(self) -> int:
        while not self._job.done():
            time.sleep(_POLL_SECONDS)
        self._ended.set()
        if not self._job.paths.result_pickle.exists():          # submitit would wait for it
            return _LOST
        try:
            return self._job.result()
        except Exception:  # of the job; its log says which
            return _LOST

    def send(self, number: int) -> None:
        """Ask the job to end, whatever the signal; see `tools.sweeping.cluster.Job`."""
        with contextlib.suppress(OSError):
            os.kill(int(self._job.job_id), signal.SIGTERM)


class _Lines:
    """Lines of a file that grows, until the job has ended; submitit's own are left out."""

    def __init__(self, path: Path, ended: threading.Event):
        self._path, self._ended = path, ended

    def __iter__(self) -> Iterator[str]:
        while not self._path.exists():
            if self._ended.wait(_POLL_SECONDS):
                return
        with open(self._path, encoding="utf-8", errors="replace") as file:
            part = ""
            while True:
                last = self._ended.is_set()
                part += file.read()
                *lines, part = part.split("\n")
                yield from (line for line in lines if not line.startswith("submitit "))
                if last:
                    return
                self._ended.wait(_POLL_SECONDS)

    def close(self) -> None:
        pass


def _in_background(folder: Path, planned: list, todo: list, argv: list[str]) -> None:
    """Start this command without --no-wait as a process that outlives the terminal, unless it runs already."""
    note = folder / "local.json"
    running = read_json(note) or {}
    if todo and not _alive(running):
        folder.mkdir(parents=True, exist_ok=True)
        log = folder / f"local-{time.strftime('%Y-%m-%d-%H-%M-%S')}.log"
        words = [word for word in argv if word != "--no-wait"]
        with open(log, "w", encoding="utf-8") as file:
            process = subprocess.Popen([sys.executable, str(cluster.ROOT / "tools" / "sweep.py"), *words], stdout=file,
                                       stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True)
        running = {"pid": process.pid, "born": born(process.pid), "log": str(log)}
        note.write_text(json.dumps(running) + "\n", encoding="utf-8")
        print(f"Started as process {process.pid}; what it says is in {log}. kill {process.pid} ends it.")
    print(state_table(planned, {p.cell.folder: "waiting" for p in todo} if _alive(running) else {}), flush=True)


def state_table(planned: list, waiting: dict) -> str:
    """How many runs are finished, running, waiting or missing, and which are running or failed.

    Args:
        waiting: the run's folder below OUTPUT -> a word on it, for runs that somebody will make or has failed to make.
    """
    words, running = {}, _running(planned)
    for p in planned:
        if p.cell.folder in running:
            words[p.name] = "running"
        else:
            words[p.name] = waiting.get(p.cell.folder) or ("finished" if p.state == "finished" else "not submitted")
    counts = {word: sum(w == word for w in words.values()) for word in dict.fromkeys(words.values())}
    lines = [f"{len(words)} runs: " + ", ".join(f"{count} {word}" for word, count in counts.items()) + "."]
    return "\n".join([*lines, *(f"  {word}: {name}" for name, word in words.items()
                                if word == "running" or word.startswith("failed"))])


def _running(planned: list) -> set[Path]:
    """Folders, below OUTPUT, of the runs that a live process writes in."""
    locked = [p for p in planned if (p.folder / "run.lock").exists()]
    if not locked:
        return set()
    from dassl.utils.run_lock import owner_of

    with ThreadPoolExecutor(64) as pool:                # a lock whose machine may be gone is watched for a while
        owners = pool.map(owner_of, (p.folder for p in locked))
        return {p.cell.folder for p, owner in zip(locked, owners, strict=True) if owner is not None}


def born(pid: int) -> str:
    """When a living process began, in ticks since the start of the machine; "" for none, or where unknown."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if state in "ZX" else fields[18]              # field 22 of proc(5)


def _alive(note: dict) -> bool:
    return bool(note) and note.get("born") == born(note["pid"]) != ""
