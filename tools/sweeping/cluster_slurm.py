"""--launcher slurm: arrays of jobs, of which at most --jobs run at once; who makes which run is kept on disk.

A run's note, OUTPUT/.jobs/slurm/<run>.json, names its job; the job writes the run's exit code beside it. A job that
squeue does not show any more has ended; without an exit code and a result it was killed, and is submitted again.
"""
from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

from tools import train
from tools.inputs import read_json
from tools.recipes import RecipeError
from tools.sweeping import cluster
from tools.sweeping.outcome import Outcome
from tools.sweeping.states import state_table

MOST_IN_AN_ARRAY = 1000             # Slurm's MaxArraySize is 1001 unless a site says otherwise
_POLL_SECONDS = 15.0
_SIGNAL_SECONDS = 90                # between Slurm's warning and its end of a job
_COMMANDS = ("sbatch", "squeue", "srun")


def run(args, planned: list, todo: list):
    """As `tools.sweeping.cluster.run`."""
    if missing := [name for name in _COMMANDS if shutil.which(name) is None]:
        raise RecipeError(f"--launcher slurm needs Slurm's {', '.join(_COMMANDS)}; {', '.join(missing)} is not on "
                          "PATH. Run the command on a login node of the cluster.")
    notes = _Notes(Path(planned[0].output, cluster.FOLDER, "slurm"))
    queue = _queue()
    flying = [p for p in todo if notes.job(p) in queue]
    failed = {p.cell.folder: code for p in todo if p not in flying and (code := notes.code(p)) not in (None, 0)}
    left = failed if args.no_wait and not args.force else {}
    grounded = [p for p in todo if p not in flying and p.cell.folder not in left]
    _submit(args, planned, grounded, flying, notes)
    if args.no_wait:
        queue = _queue()
        words = {p.cell.folder: queue.get(notes.job(p), "submitted").lower() for p in (*flying, *grounded)}
        words |= {folder: f"failed (exit code {code})" for folder, code in failed.items() if folder not in words}
        print(state_table(planned, words), flush=True)
        if failed:
            print("What failed is submitted again without --no-wait, or with --force; logs: "
                  f"{notes.folder}", flush=True)
        return None
    return _wait([*flying, *grounded], notes)


class _Notes:
    """Which job makes which run.

    Attributes:
        folder: of the notes, of submitit's files and of the jobs' logs.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def path(self, p, ending: str) -> Path:
        return self.folder / f"{'+'.join(p.cell.folder.parts)}.{ending}"

    def job(self, p) -> str | None:
        """Number of the job that makes it, or made it last: "123_4"."""
        return (read_json(self.path(p, "json")) or {}).get("job")

    def code(self, p) -> int | None:
        """Exit code of the run; None until it has one."""
        try:
            return int(self.path(p, "code").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None

    def write(self, p, job: str) -> None:
        path = self.path(p, "json")
        beside = path.with_name(f"{path.name}.{os.getpid()}")
        beside.write_text(json.dumps({"job": job, "submitted": time.strftime("%Y-%m-%d %H:%M:%S")}), encoding="utf-8")
        os.replace(beside, path)


def _submit(args, planned: list, grounded: list, flying: list, notes: _Notes) -> None:
    """Trainings first; what tests them waits for their array, and for those that are in the queue already.

    --jobs bounds one array, so that with it an array that follows another of this command waits for the whole of that.
    """
    ids, before = {p.cell.folder: notes.job(p).split("_")[0] for p in flying}, set()
    first = [p for p in grounded if p.cell.train_on is None]
    for chunk in (first, [p for p in grounded if p.cell.train_on is not None]):
        after = {ids[p.cell.train_on.folder] for p in chunk if p.cell.train_on and p.cell.train_on.folder in ids}
        for at in range(0, len(chunk), MOST_IN_AN_ARRAY):
            part = chunk[at:at + MOST_IN_AN_ARRAY]
            for p, job in zip(part, _array(args, planned, part, sorted(after | before), notes), strict=True):
                notes.write(p, job)
                ids[p.cell.folder] = job.split("_")[0]
            if args.jobs:
                before.add(ids[part[-1].cell.folder])


def _array(args, planned: list, part: list, after: list[str], notes: _Notes) -> list[str]:
    """Submit an array; the numbers of its jobs."""
    gpus = cluster.gpus_per_cell(args, planned)
    executor = cluster.executor("slurm", notes.folder)
    extra = dict(word.partition("=")[::2] for word in args.slurm)
    if bad := [word for word in args.slurm if not word.partition("=")[2]]:
        raise RecipeError(f"--slurm takes options of sbatch as KEY=VALUE, e.g. mail-type=END; got {bad[0]!r}.")
    given = {"slurm_partition": args.partition, "slurm_account": args.account, "slurm_qos": args.qos,
             "slurm_constraint": args.constraint, "mem_gb": args.mem, "cpus_per_task": args.cpus_per_cell,
             "gpus_per_node": gpus or None, "slurm_dependency": f"afterany:{':'.join(after)}" if after else None}
    executor.update_parameters(
        name="sweep", timeout_min=cluster.minutes(args), nodes=1, tasks_per_node=1,
        slurm_signal_delay_s=_SIGNAL_SECONDS, slurm_array_parallelism=args.jobs or len(part),
        slurm_additional_parameters={"requeue": True, **extra},
        slurm_setup=[f'export PYTHONPATH="{cluster.ROOT}${{PYTHONPATH:+:$PYTHONPATH}}"'],
        **{name: value for name, value in given.items() if value is not None})
    for p in part:
        notes.path(p, "code").unlink(missing_ok=True)
    try:
        with executor.batch():          # a finished run among them tests a training that is made anew
            jobs = [executor.submit(cluster.Job(p, max(gpus, 1), {}, args.force or p.state == "finished",
                                                notes.path(p, "code"))) for p in part]
        return [str(job.job_id) for job in jobs]
    except Exception as error:  # submitit wraps sbatch's refusal in one of its own
        raise RecipeError(f"Slurm did not take the jobs: {error}") from error


def _queue() -> dict[str, str]:
    """State of every job of this user that waits or runs: {"123_4": "PENDING"}."""
    reply = subprocess.run(["squeue", "--noheader", "--array", "--user", str(os.getuid()), "--format", "%i|%T"],
                           capture_output=True, text=True, timeout=120)
    if reply.returncode:
        raise RecipeError(f"squeue does not tell which jobs are in the queue: {reply.stderr.strip()}. Nothing was "
                          "submitted; try again.")
    return dict(line.strip().split("|", 1) for line in reply.stdout.splitlines() if "|" in line)


def _wait(jobs: list, notes: _Notes) -> Outcome:
    """Until no job is in the queue any more, with a line whenever something changes."""
    outcome, waiting, missed, said = Outcome(), list(jobs), set(), ""
    try:
        while waiting:
            queue = _queue()
            for p in list(waiting):
                code = notes.code(p)
                if code is None and (notes.job(p) in queue or p.cell.folder not in missed):
                    missed -= {p.cell.folder} if notes.job(p) in queue else set()
                    missed |= set() if notes.job(p) in queue else {p.cell.folder}     # files may come a little later
                    continue
                waiting.remove(p)
                _settle(p, code, notes, outcome)
            states = [queue.get(notes.job(p), "ENDING") for p in waiting]
            line = f"{len(jobs) - len(waiting)} of {len(jobs)} runs done" + "".join(
                f", {states.count(state)} {state.lower()}" for state in sorted(set(states)))
            if line != said:
                print(line, flush=True)
            said = line
            if waiting:
                time.sleep(_POLL_SECONDS)
    except KeyboardInterrupt:
        print(f"{len(waiting)} jobs stay in Slurm's queue; scancel "
              f"{' '.join(sorted({notes.job(p).split('_')[0] for p in waiting}))} ends them.")
        outcome.stopped_by = 130
    return outcome


def _settle(p, code: int | None, notes: _Notes, outcome: Outcome) -> None:
    p.look()
    result, note = p.folder / "results.json", notes.path(p, "json")
    if p.state == "finished" and (code == 0 or code is None and result.stat().st_mtime >= note.stat().st_mtime):
        print(f"{p.name}: {p.score}", flush=True)
    elif code == train.IN_USE:
        outcome.elsewhere.append(p)
    else:
        log = notes.folder / f"{notes.job(p)}_0_log.err"
        last = log.read_text(encoding="utf-8", errors="replace").splitlines()[-8:] if log.exists() else []
        lines = p.log_tail() or last if code != train.USER_ERROR else last
        outcome.failed.append((p, 1 if code is None else code, lines))
