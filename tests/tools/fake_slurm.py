"""sbatch, srun, squeue and sinfo for tests: `python fake_slurm.py COMMAND ARGUMENTS`; all is kept below $FAKE_SLURM.

With $FAKE_SLURM_HOLDS nothing ever starts; otherwise the tasks of an array run one after the other.
"""
import os
import re
import subprocess
import sys
from pathlib import Path

STATE = Path(os.environ["FAKE_SLURM"])


def sbatch(script: str) -> None:
    number = str(100 + len(list(STATE.glob("*.sh"))))
    text = Path(script).read_text()
    (STATE / f"{number}.sh").write_text(text)
    array = re.search(r"--array=0-(\d+)", text)
    jobs = [f"{number}_{i}" for i in range(int(array[1]) + 1)] if array else [number]
    for job in jobs:
        (STATE / f"{job}.job").write_text("PENDING")
    if not os.environ.get("FAKE_SLURM_HOLDS"):
        subprocess.Popen([sys.executable, __file__, "run", *jobs], stdout=subprocess.DEVNULL, start_new_session=True,
                         stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    print(f"Submitted batch job {number}")


def run(*jobs: str) -> None:
    for job in jobs:
        number, _, task = job.partition("_")
        array = {"SLURM_ARRAY_JOB_ID": number, "SLURM_ARRAY_TASK_ID": task} if task else {}
        (STATE / f"{job}.job").write_text("RUNNING")
        subprocess.run(["bash", str(STATE / f"{number}.sh")], env={**os.environ, "SLURM_JOB_ID": number, **array})
        (STATE / f"{job}.job").unlink()


def srun(*words: str) -> None:
    words, files = list(words), {}
    while words[0].startswith("--"):
        flag = words.pop(0)
        if flag in ("--output", "--error"):
            files[flag] = words.pop(0)
    for flag, name in files.items():
        for tag, variable in (("%A", "SLURM_ARRAY_JOB_ID"), ("%a", "SLURM_ARRAY_TASK_ID"), ("%j", "SLURM_JOB_ID")):
            name = name.replace(tag, os.environ.get(variable, ""))
        files[flag] = open(name.replace("%t", "0"), "a")  # noqa: SIM115 - open as long as the process
    sys.exit(subprocess.run(words, stdout=files.get("--output"), stderr=files.get("--error")).returncode)


def squeue(*_) -> None:
    for path in sorted(STATE.glob("*.job")):
        print(f"{path.stem}|{path.read_text()}|None")


def sinfo(*_) -> None:
    print("cpu|cpu*|(null)\ngpu|gpu|gpu:a100:4(S:0-1)" if os.environ.get("FAKE_SLURM_HAS_GPUS_ASIDE") else
          "gpu|gpu*|gpu:2")


if __name__ == "__main__":
    {"sbatch": sbatch, "srun": srun, "squeue": squeue, "sinfo": sinfo, "run": run}[sys.argv[1]](*sys.argv[2:])
