"""Runs of a sweep as jobs of submitit on Slurm (--launcher slurm).

A job is one run of tools/train.py (with several GPUs, of torchrun). One that is pre-empted or out of time has its run
save its state, goes back into the queue and resumes there; so does one whose machine went away.
Imports nothing heavy: submitit is an optional extra, imported when a launcher is asked for.
"""
from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tools import train
from tools.checkout import ROOT
from tools.command import number
from tools.runs import inputs
from tools.runs.recipe import RecipeError
from tools.sweeping import cells
from tools.sweeping.leash import LEASH
from tools.sweeping.outcome import Outcome

FOLDER = ".jobs"                    # below OUTPUT: submitit's files and who makes which run
MOST_TIMEOUTS = 20                  # of one run; after these it counts as failed
_OF_JOBS = ("no_wait", "time", "gpus_per_cell", "mem", "cpus_per_cell", "partition", "account", "qos", "constraint",
            "slurm")                    # flags that only a launcher acts on
MINUTES = 240                       # of one run, unless --time says otherwise
_SAVE_SECONDS = 60                  # for a run to save when its job must end
_ASKED_TO_END = (143, 129, -15, -1)  # exit codes of a run after SIGTERM and SIGHUP: whether it handled them or not
_HELD_SECONDS, _HELD_TRIES = 20, 6  # a run folder whose last owner was on a machine that went away is free after these


def add_flags(p: argparse.ArgumentParser) -> None:
    g = p.add_argument_group("other machines (pip install submitit; docs/scaling.md)")
    g.add_argument("--launcher", choices=["slurm"],
                   help="every run as a job of an array of Slurm, at most --jobs at once")
    g.add_argument("--no-wait", action="store_true",
                   help="return at once; the same command shows the state of the runs, and submits what is missing")
    g.add_argument("--time", metavar="[D-]H:MM:SS|MIN", type=_minutes,
                   help="of one run before it is put back into the queue (default: 4:00:00)")
    g.add_argument("--mem", type=number(0, float), metavar="GB", help="memory of one run")
    g.add_argument("--gpus-per-cell", type=number(0), metavar="N",
                   help="GPUs of one run; more than one train it together (default: 1, none with USE_CUDA False)")
    g.add_argument("--cpus-per-cell", type=number(1), metavar="N", help="CPU cores of one run")
    for name in ("partition", "account", "qos", "constraint"):
        g.add_argument(f"--{name}", metavar="NAME", help="as Slurm takes it")
    g.add_argument("--slurm", nargs="+", default=[], metavar="KEY=VALUE",
                   help="further options of sbatch, e.g. --slurm mail-type=END exclude=node7")


def run(args: argparse.Namespace, planned: list, todo: list) -> Outcome | None:
    """Make the runs of `todo`, of the whole sweep `planned`, by the launcher.

    Returns:
        None where nothing is waited for.
    Raises:
        RecipeError: submitit or Slurm is not there, or refuses.
    """
    if not todo:
        return Outcome()
    try:
        import submitit  # noqa: F401 - reported here if it is missing, before anything is written
    except ImportError as error:
        raise RecipeError(f"--launcher {args.launcher} starts its jobs through submitit, which is not installed here. "
                          "`pip install submitit` (the extra `cluster` of setup.py) adds it; without --launcher the "
                          "runs start on this machine.") from error
    from tools.sweeping import cluster_slurm

    add_to_path()
    return cluster_slurm.run(args, planned, todo)


def check(args: argparse.Namespace) -> None:
    """Raises RecipeError for flags that mean nothing without a launcher, or with one."""
    given = [name for name in _OF_JOBS
             if (value := getattr(args, name)) is not None and value is not False and value != []]
    if given and not args.launcher:
        flag = f"--{given[0].replace('_', '-')}"
        raise RecipeError(f"{flag} belongs to --launcher slurm, which starts every run as a job. Add it, or leave "
                          f"{flag} out.")
    if args.launcher and (args.jobs_per_gpu or args.fresh_processes):
        flag = "--jobs-per-gpu" if args.jobs_per_gpu else "--fresh-processes"
        raise RecipeError(f"{flag} is for runs on this machine, and --launcher {args.launcher} starts every run as a "
                          f"job. Leave {flag} out.")


def gpus_per_cell(args: argparse.Namespace, planned: list) -> int:
    """GPUs that a job asks for."""
    if args.gpus_per_cell is not None:
        return args.gpus_per_cell
    return 0 if any(str(p.cell.user_opts.get("USE_CUDA")).lower() == "false" for p in planned) else 1


def add_to_path() -> None:
    """Have Python find this module in jobs, which start elsewhere."""
    known = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if str(ROOT) not in known:
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), *known]))


def executor(launcher: str, folder: Path):
    """submitit's, whose jobs may run out of time MOST_TIMEOUTS times. Raises RecipeError where it cannot be had."""
    from submitit import AutoExecutor

    try:
        return AutoExecutor(folder, cluster=launcher, **{f"{launcher}_max_num_timeout": MOST_TIMEOUTS})
    except RuntimeError as error:
        raise RecipeError(f"--launcher {launcher} cannot be used here: {error}") from error


@dataclass
class Job:
    """What a job calls: one run, from its saved state to its end.

    Attributes:
        gpus: processes of the run, one per GPU.
        force: replace the run that is in the folder now; what it has become since then is resumed.
        code: file for the exit code once the run has ended by itself; None keeps no file.
    """

    planned: cells.Planned
    gpus: int = 1
    force: bool = False
    code: Path | None = None

    def __post_init__(self) -> None:
        self.former = self._description()

    def __call__(self) -> int:
        """The exit code of tools/train.py. SIGTERM comes to the run as well as to the job, which waits for it."""
        if self.code is not None:
            self.code.unlink(missing_ok=True)           # of this job before it was requeued
        for _ in range(_HELD_TRIES):
            if (code := self._run()) != train.IN_USE:
                break
            time.sleep(_HELD_SECONDS)
        if code in _ASKED_TO_END:
            _requeue_or_end(code)
        if self.code is not None:
            self.code.write_text(f"{code}\n", encoding="utf-8")
        return code

    def checkpoint(self):
        """submitit calls this when the job must end before its run: the run saves, and the job is requeued."""
        from submitit.helpers import DelayedSubmission

        if (pid := getattr(self, "_pid", None)) is not None and not _gone(pid):
            os.kill(pid, signal.SIGTERM)
            until = time.monotonic() + _SAVE_SECONDS
            while not (ended := _gone(pid)) and time.monotonic() < until:
                time.sleep(0.1)
            if not ended:
                os.killpg(pid, signal.SIGKILL)
        return DelayedSubmission(self)

    @property
    def forced(self) -> bool:
        """Whether the run must replace what is in the folder: a run describes itself when it does."""
        return self.force and self._description() == self.former

    def _description(self) -> int | None:
        """When the run in the folder was described; None for no run."""
        path = self.planned.folder / inputs.FILE
        return path.stat().st_mtime_ns if path.exists() else None

    def _run(self) -> int:
        p = self.planned
        if self.forced:
            p.state = "new"
        else:
            p.look()
        if p.state == "finished":
            return 0
        arguments, environment = p.launch()
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", **environment, LEASH: "stdin"}
        # A session of its own, to kill it whole; the leash ends it with the job.
        with subprocess.Popen(command(arguments, p.cell.trainer, self.gpus), env=environment, stdin=subprocess.PIPE,
                              start_new_session=True, preexec_fn=_ignore_warnings) as process:
            self._pid = process.pid
            code = process.wait()
            self._pid = None
        return code

    def __getstate__(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if not name.startswith("_")}


def _ignore_warnings() -> None:
    """Before the run begins: Slurm warns every process of a job, and what handles no USR2 would die of it."""
    for warning in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(warning, signal.SIG_IGN)


def _requeue_or_end(code: int) -> None:
    """End a job whose run was asked to end from outside: it leaves neither an exit code nor submitit's "success".

    Slurm is about to end the job, and to requeue it after a pre-emption, unless the job still counts as running: a
    signal sent by hand, or the warning before a pre-emption (GraceTime). Then the job has itself requeued.
    """
    from submitit import JobEnvironment

    ask = ["squeue", "--noheader", "--jobs", os.environ["SLURM_JOB_ID"], "--format", "%T"]
    state = subprocess.run(ask, capture_output=True, text=True, timeout=120).stdout.strip()
    if state == "RUNNING":
        os.kill(os.getpid(), getattr(signal, f"SIG{JobEnvironment.USR_SIG}"))     # submitit requeues the job and exits
    sys.exit(code if code > 0 else 128 - code)


def _gone(pid: int) -> bool:
    """Whether a child has ended. Asked of the system: a signal may have come while subprocess was waiting for it."""
    try:
        return os.waitpid(pid, os.WNOHANG) != (0, 0)
    except ChildProcessError:
        return True


def command(arguments: list[str], trainer: str, gpus: int) -> list[str]:
    """One process, or torchrun with one for each GPU."""
    script, *arguments = cells.train_command(arguments)[1:]
    together = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(gpus)]
    return [sys.executable, *(together if gpus > 1 and _learns_together(trainer) else []), script, *arguments]


def _learns_together(trainer: str) -> bool:
    """Whether several processes make its runs faster, as its class says; one of a plugin is taken to."""
    from dassl.engine import TRAINER_REGISTRY  # heavy, but only jobs of several GPUs ask

    train.register()
    method = TRAINER_REGISTRY.get(trainer) if trainer in TRAINER_REGISTRY else None
    return getattr(method, "learns", "steps") == "steps" and not getattr(method, "one_process_only", "")


def _minutes(text: str) -> int:
    """Minutes of "90", "1:30:00" or "1-12:00:00", at least 1."""
    found = re.fullmatch(r"(?:(?:(?P<d>\d+)-)?(?P<h>\d+):(?P<m>[0-5]\d):(?P<s>[0-5]\d)|(?P<min>\d+))", text)
    if not found:
        raise argparse.ArgumentTypeError(f"must be a time such as 90 (minutes), 4:00:00 or 1-12:00:00, got {text!r}")
    d, h, m, s, whole = (int(found[name] or 0) for name in ("d", "h", "m", "s", "min"))
    return max(1, whole + 60 * (24 * d + h) + m + (s > 0))
