"""--launcher slurm: arrays of jobs, of which at most --jobs run at once; which job makes which run is kept on disk.

A run's note, OUTPUT/.jobs/slurm/<run>.json, names its job; the job writes the run's exit code next to it. While the job
is in the queue the run is pending, whatever its exit code was before the job was requeued. A job that has left the
queue without an exit code and a result was cancelled or killed; its run is submitted again.
"""
from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from hashlib import sha256
from pathlib import Path

from filelock import FileLock

from tools import train
from tools.runs.folder import LOCK
from tools.runs.inputs import read_json
from tools.runs.recipe import RecipeError
from tools.sweeping import cluster
from tools.sweeping.cells import TAIL
from tools.sweeping.outcome import Outcome

MOST_IN_AN_ARRAY = 1000             # Slurm's MaxArraySize is 1001 unless a site says otherwise
_POLL_SECONDS = 15.0
_NAME_LENGTH = 220                  # bytes of a note's name
_SIGNAL_SECONDS = 90                # between Slurm's warning and its end of a job, but at most a sixth of its time
_COMMANDS = ("sbatch", "squeue", "srun", "sinfo")
_ENDED = ("boot_fail", "cancelled", "completed", "deadline", "failed", "node_fail", "out_of_memory", "preempted",
          "revoked", "timeout")
_USUAL = ("None", "Priority", "Resources", "JobArrayTaskLimit", "BeginTime", "Dependency")      # reasons to be pending
_MEMORY = re.compile(r"^(srun|slurmstepd).*(memory limit|oom.kill|out of memory)", re.IGNORECASE | re.MULTILINE)


def run(args, planned: list, todo: list):
    """As `tools.sweeping.cluster.run`."""
    if missing := [name for name in _COMMANDS if shutil.which(name) is None]:
        raise RecipeError(f"--launcher slurm needs Slurm's {', '.join(_COMMANDS)}; {', '.join(missing)} is not on "
                          "PATH. Run the command on a login node of the cluster.")
    _check_gpus(args, cluster.gpus_per_cell(args, planned))
    notes = _Notes(Path(planned[0].output, cluster.FOLDER, "slurm"))
    with notes.locked():
        states = _states()
        flying = [p for p in todo if _in_queue(states.get(notes.job(p)))]
        failed = {p.cell.folder: why for p in todo if p not in flying and (why := notes.failure(p, states))}
        left = failed if args.no_wait and not args.force else {}
        grounded = [p for p in todo if p not in flying and p.cell.folder not in left]
        _submit(args, planned, grounded, flying, notes)
    if args.no_wait:
        states = _patient_states()
        words = {p.cell.folder: states.get(notes.job(p), "submitted") for p in (*flying, *grounded)}
        words |= {folder: f"failed ({why})" for folder, why in left.items()}
        print(state_table(planned, words), flush=True)
        if left:
            print("What failed is submitted again without --no-wait, or with --force; logs: "
                  f"{notes.folder}", flush=True)
        return None
    return _wait([*flying, *grounded], notes)


def _check_gpus(args, wanted: int) -> None:
    """Raises RecipeError where the partition has no node with so many GPUs, which sbatch calls an invalid resource."""
    name = args.partition or _options(args).get("partition") or os.environ.get("SBATCH_PARTITION")
    reply = subprocess.run(["sinfo", "--noheader", "--all", "--format", "%R|%P|%G"], capture_output=True, text=True,
                           timeout=120)
    most: dict[str, int] = {}                       # GPUs of a partition's node
    default = ""
    for line in reply.stdout.splitlines():
        partition, starred, gres = line.strip().split("|", 2)
        gpus = sum(map(int, re.findall(r"\bgpu(?::[^:,(]+)?:(\d+)", gres)))
        most[partition] = max(most.get(partition, 0), gpus)
        default = partition if starred.endswith("*") else default
    asked = [partition for partition in (name or default).split(",") if partition in most]
    if not asked or max(most[partition] for partition in asked) >= wanted:      # an unknown one sbatch names itself
        return
    others = ", ".join(partition for partition, gpus in most.items() if gpus >= wanted)
    has = max(most[partition] for partition in asked)
    holds = f"at most {has} GPUs in a node" if has else "no GPUs"
    raise RecipeError(f"The partition {', '.join(asked)} has {holds}, and every run would ask for {wanted}. "
                      "--gpus-per-cell 0 (or USE_CUDA False) trains on the CPU" +
                      (f"; --partition takes one with GPUs: {others}." if others else "."))


class _Notes:
    """Which job makes which run.

    Attributes:
        folder: of the notes, of submitit's files and of the jobs' logs.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def path(self, p, ending: str) -> Path:
        """One name for all parts of the run's folder; a file system takes 255 bytes, of which writing needs some."""
        name = "+".join(p.cell.folder.parts)
        if len(whole := os.fsencode(name)) > _NAME_LENGTH:
            name = f"{whole[:_NAME_LENGTH - 17].decode(errors='ignore')}-{sha256(whole).hexdigest()[:16]}"
        return self.folder / f"{name}.{ending}"

    def job(self, p) -> str | None:
        """Number of the job that makes it, or made it last: "123_4"."""
        return (read_json(self.path(p, "json")) or {}).get("job")

    def code(self, p) -> int | None:
        """Exit code of the run; None until it has one."""
        try:
            return int(self.path(p, "code").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None

    def log(self, p) -> str:
        """What the job, and Slurm about it, has written to stderr."""
        path = self.folder / f"{self.job(p)}_0_log.err"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def failure(self, p, states: dict[str, str]) -> str:
        """Why a run whose job has left the queue is not worth trying again as it is; "" where it is."""
        code = self.code(p)
        if code != 0 and (states.get(self.job(p)) == "out_of_memory" or _MEMORY.search(self.log(p))):
            return "out of memory; --mem GB raises the limit"
        if code is None and self.timed_out(p):
            return f"out of time {cluster.MOST_TIMEOUTS + 1} times; --time raises the limit"
        return f"exit code {code}" if code else ""

    def timed_out(self, p) -> bool:
        """Whether submitit has given the job up; it says so after MOST_TIMEOUTS requeues."""
        return "timed-out too many times" in self.log(p)

    def locked(self) -> FileLock:
        """Inside, no other sweep looks for what to submit."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder / "lock")

    def write(self, p, job: str) -> None:
        from dassl.files.whole import write_whole

        note = {"job": job, "submitted": time.strftime("%Y-%m-%d %H:%M:%S")}
        write_whole(self.path(p, "json"), json.dumps(note))


def _submit(args, planned: list, grounded: list, flying: list, notes: _Notes) -> None:
    """What a run tests or starts from comes before it: a run waits for the array, or the job, of that one.

    --jobs bounds one array, so that with it an array that follows another of this command waits for the whole of that.
    """
    ids, before = {p.cell.folder: notes.job(p).split("_")[0] for p in flying}, set()
    left = list(grounded)
    while left:
        folders = {p.cell.folder for p in left}
        chunk = [p for p in left if p.before not in folders]
        left = [p for p in left if p.before in folders]
        after = {ids[p.before] for p in chunk if p.before in ids}
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
    minutes = args.time or cluster.MINUTES
    given = {"slurm_partition": args.partition, "slurm_account": args.account, "slurm_qos": args.qos,
             "slurm_constraint": args.constraint, "mem_gb": args.mem, "cpus_per_task": args.cpus_per_cell,
             "gpus_per_node": gpus or None, "slurm_dependency": f"afterany:{':'.join(after)}" if after else None}
    executor.update_parameters(
        name="sweep", timeout_min=minutes, nodes=1, tasks_per_node=1,
        slurm_signal_delay_s=min(_SIGNAL_SECONDS, 10 * minutes), slurm_array_parallelism=args.jobs or len(part),
        slurm_additional_parameters={"requeue": True, **_options(args)},
        slurm_setup=[f'export PYTHONPATH="{cluster.ROOT}${{PYTHONPATH:+:$PYTHONPATH}}"'],
        **{name: value for name, value in given.items() if value is not None})
    for p in part:
        notes.path(p, "code").unlink(missing_ok=True)
    try:
        with executor.batch():          # a finished run among them tests a training that is rerun
            jobs = [executor.submit(cluster.Job(p, max(gpus, 1), args.force or p.state == "finished",
                                                notes.path(p, "code"))) for p in part]
        return [str(job.job_id) for job in jobs]
    except Exception as error:  # submitit wraps sbatch's refusal in one of its own
        raise RecipeError(f"Slurm did not take the jobs: {error}") from error


def _options(args) -> dict[str, str]:
    """Of --slurm."""
    if bad := [word for word in args.slurm if not word.partition("=")[2]]:
        raise RecipeError(f"--slurm takes options of sbatch as KEY=VALUE, e.g. mail-type=END, got {bad[0]!r}.")
    return dict(word.partition("=")[::2] for word in args.slurm)


def _states() -> dict[str, str]:
    """State of this user's jobs in the queue, and of those that ended within minutes: {"123_4": "pending"}.

    A pending job has the reason added where it is not a usual one: "pending (PartitionTimeLimit)".
    """
    words = ["squeue", "--noheader", "--array", "--states", "all", "--user", str(os.getuid()), "--format", "%i|%T|%r"]
    try:
        reply = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise RecipeError(f"squeue cannot say which jobs are in the queue: {(error.stderr or str(error)).strip()}") \
            from error
    rows = [line.strip().split("|", 2) for line in reply.stdout.splitlines() if "|" in line]
    return {job: state.lower() + (f" ({reason})" if state == "PENDING" and reason not in _USUAL else "")
            for job, state, reason in rows}


def _patient_states() -> dict[str, str]:
    """`_states`, however long Slurm takes to answer."""
    said = False
    while True:
        try:
            return _states()
        except RecipeError as error:
            if not said:
                print(f"{error}. Asking again until it answers.", flush=True)
            said = True
            time.sleep(_POLL_SECONDS)


def _in_queue(state: str | None) -> bool:
    return state is not None and state not in _ENDED


def _wait(jobs: list, notes: _Notes) -> Outcome:
    """Until no job is in the queue any more, with a line whenever something changes."""
    outcome, waiting, missed, said = Outcome(), list(jobs), set(), ""
    try:
        while waiting:
            states = _patient_states()
            for p in list(waiting):
                code, state = notes.code(p), states.get(notes.job(p))
                if code != 0 and _in_queue(state):      # of a requeued job, an exit code does not count
                    missed.discard(p.cell.folder)
                elif code is None and p.cell.folder not in missed:
                    missed.add(p.cell.folder)           # its files may come a little later
                else:
                    waiting.remove(p)
                    _settle(p, code, states, notes, outcome)
            words = [state if _in_queue(state := states.get(notes.job(p))) else "ending" for p in waiting]
            line = f"{len(jobs) - len(waiting)} of {len(jobs)} runs done" + "".join(
                f", {words.count(word)} {word}" for word in sorted(set(words)))
            if line != said:
                print(line, flush=True)
            said = line
            if waiting:
                time.sleep(_POLL_SECONDS)
    except (KeyboardInterrupt, SystemExit) as stop:
        print(f"{len(waiting)} jobs stay in Slurm's queue; scancel "
              f"{' '.join(sorted({notes.job(p).split('_')[0] for p in waiting}))} ends them.")
        outcome.stopped_by = 130 if isinstance(stop, KeyboardInterrupt) else int(stop.code or 143)
    return outcome


def _settle(p, code: int | None, states: dict[str, str], notes: _Notes, outcome: Outcome) -> None:
    p.look()
    result, note = p.folder / "results.json", notes.path(p, "json")
    if p.state == "finished" and (code == 0 or code is None and result.stat().st_mtime >= note.stat().st_mtime):
        print(f"{p.name}: {p.record.score}", flush=True)
    elif code == train.IN_USE:
        outcome.elsewhere.append(p)
    else:
        last = notes.log(p).splitlines()[-TAIL:]
        lines = p.run.log_tail(TAIL) or last if code != train.USER_ERROR else last
        if code is None:
            job = notes.job(p)
            why = notes.failure(p, states) or \
                f"{states.get(job, 'gone').replace('_', ' ')}; the same command submits the run again"
            asked_to_end = states.get(job) == "cancelled" or notes.timed_out(p)     # its log says but where it was
            lines = [f"Slurm's job {job}: {why}.", *([] if asked_to_end else lines)]
        outcome.failed.append((p, 1 if code is None else code, lines))


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
    locked = [p for p in planned if (p.folder / LOCK).exists()]
    if not locked:
        return set()
    from dassl.utils.run_lock import owner_of

    return {p.cell.folder for p in locked if owner_of(p.folder)}
