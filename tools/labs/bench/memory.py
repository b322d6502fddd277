"""Peak memory of one step of one side: on a CPU in a process that does nothing else, on a GPU by its allocator."""
from __future__ import annotations

import ctypes
import gc
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import torch

from tools.labs.bench.rows import Row, Settings
from tools.labs.bench.timing import Watch
from tools.train import ROOT

MB = 2 ** 20


def peak_mb(row: Row, settings: Settings, side: str) -> float | None:
    """Memory that a step needs besides weights and data, in MB; None where the system does not tell (not Linux)."""
    if not Path("/proc/self/clear_refs").exists():
        return None
    task = json.dumps({"row": asdict(row), "settings": asdict(settings), "side": side})
    reply = subprocess.run([sys.executable, "-m", "tools.labs.bench.memory", task], cwd=ROOT, capture_output=True,
                           text=True)
    if reply.returncode:
        raise RuntimeError(f"Measuring the memory of {row}, {side}, failed:\n{reply.stderr}")
    return json.loads(reply.stdout.splitlines()[-1])


def peak_on_gpu_mb(step) -> float:
    """The same of a step whose model is on the GPU, in this process."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step(Watch("cuda"))
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / MB


def _measure(task: dict) -> float:
    """Growth of this process's largest resident size over one first step."""
    from tools.labs.bench.measure import step_of, trainer_of

    row, settings = Row(**task["row"]), Settings(**task["settings"])
    torch.set_num_threads(settings.threads)
    with tempfile.TemporaryDirectory() as folder:
        step = step_of(task["side"], row, settings, trainer_of(task["side"], row, settings, Path(folder)))
        _give_freed_memory_back()
        Path("/proc/self/clear_refs").write_text("5")        # the largest size counts from here
        before = _status("VmRSS")
        step(Watch())
        return (_status("VmHWM") - before) / MB


def _give_freed_memory_back() -> None:
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except AttributeError:                                   # a C library other than glibc
        return


def _status(name: str) -> int:
    """A size of this process, bytes."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1]) * 1024


if __name__ == "__main__":
    print(json.dumps(_measure(json.loads(sys.argv[1]))))
