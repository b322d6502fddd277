"""How many runs go side by side, and on which GPU or with how many threads each.

The embedded model runs on one thread unless OMP_NUM_THREADS says otherwise, alone or in a sweep: its matrices are too
small to share, and as PyTorch's sums differ in their last bits with the number of threads, its results then depend
neither on --jobs nor on the number of cores. Imports nothing heavy.
"""
from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tools.machine import cores, free_memory
from tools.runs.recipe import Cell, RecipeError, read_yaml

TINY = "tiny"
THREADS, DEVICES, USE_CUDA, BACKBONE = "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "USE_CUDA", "MODEL.BACKBONE.NAME"
KEPT = "DASSL_WARM_BACKBONES"       # names, one in a line: backbones whose weights a sweep reads once for its runs
SMALL_JOBS_PER_GPU = 4              # of the embedded model, unless --jobs-per-gpu says otherwise
_MEMORY_OF_A_SMALL_JOB = 1 << 30    # bytes; a run of the embedded model takes about half of it


@dataclass(frozen=True)
class Slots:
    """Places for runs that go side by side.

    Attributes:
        devices: one per place: the GPU as CUDA_VISIBLE_DEVICES names it, "" for the CPU.
        threads: OMP_NUM_THREADS of every run that does not choose its own number; None leaves it to PyTorch.
        words: what the plan says of them.
    """

    devices: tuple[str, ...]
    threads: int | None
    words: str

    def environment(self, cell: Cell, place: int) -> dict[str, str]:
        """What a run of `cell` finds otherwise in its environment than the sweep."""
        found = {DEVICES: self.devices[place]} if self.devices[place] else {}
        if self.threads is not None and backbone_of(cell) != TINY:
            found[THREADS] = str(self.threads)
        return found


def slots(cells: list[Cell], jobs: int | None = None, per_gpu: int | None = None,
          environ: Mapping[str, str] = os.environ) -> Slots:
    """Places for these cells.

    Args:
        jobs: side by side; None chooses: on CPUs as many as have cores, on GPUs `per_gpu` on each.
        per_gpu: most of them on one GPU; None is 4 for runs of the embedded model, else 1 (and what `jobs` asks for).
    Raises:
        RecipeError: OMP_NUM_THREADS is not a number.
    """
    small = all(backbone_of(cell) == TINY for cell in cells)
    found = [] if any(str(cell.user_opts.get(USE_CUDA)).lower() == "false" for cell in cells) else gpus(environ)
    count, have = max(len(cells), 1), cores()
    if found:
        cap = per_gpu or (-(-jobs // len(found)) if jobs else SMALL_JOBS_PER_GPU if small else 1)
        number = max(1, min(jobs or count, count, cap * len(found), have if jobs is None else count))
        devices = tuple(found[place % len(found)] for place in range(number))
        threads = max(1, have // number) if number > 1 and not small and THREADS not in environ else None
        on = f"GPU {found[0]}" if len(found) == 1 else f"{len(found)} GPUs"
        return Slots(devices, threads, f"{_at_a_time(number)} on {on}")
    asked = _threads(environ)
    each = asked or (1 if small else have)
    free = free_memory()
    fit = have // each if free is None else min(have // each, free // _MEMORY_OF_A_SMALL_JOB)
    number = min(jobs or max(1, fit), count)
    threads = max(1, have // number) if number > 1 and not asked and not small else None
    each = threads or each
    return Slots(("",) * number, threads, f"{_at_a_time(number)}, {each} thread{'s' * (each > 1)} each")


def threads_of(backbone: str, environ: Mapping[str, str] = os.environ) -> int | None:
    """CPU threads for a run of this backbone; None leaves the number to PyTorch, which takes every core."""
    return 1 if backbone == TINY and THREADS not in environ else None


@cache
def _backbone_of(config_file: Path) -> str:
    content = read_yaml(config_file)
    for key in BACKBONE.split("."):
        content = content.get(key) if isinstance(content, dict) else None
    return "" if content is None else str(content)


def backbone_of(cell: Cell) -> str:
    """MODEL.BACKBONE.NAME of a run; "" where neither its options nor its trainer yaml names one."""
    return str(cell.opts.get(BACKBONE) or _backbone_of(cell.config_file.absolute()))


def gpus(environ: Mapping[str, str] = os.environ) -> list[str]:
    """The GPUs that PyTorch may use, as CUDA_VISIBLE_DEVICES names them; asks neither PyTorch nor CUDA."""
    if not (_torch_has_cuda() and _has_nvidia_driver()):
        return []
    if DEVICES in environ:
        names = [name.strip() for name in environ[DEVICES].split(",")]
        return names[:next((i for i, name in enumerate(names) if name in ("", "-1")), len(names))]
    if not shutil.which("nvidia-smi"):
        return []
    try:
        reply = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return parse_gpus(reply.stdout) if reply.returncode == 0 else []


def parse_gpus(listing: str) -> list[str]:
    """Names out of `nvidia-smi -L`: numbers of whole GPUs, or the UUIDs of the parts (MIG) of one that is divided."""
    found: list[str] = []
    for line in listing.splitlines():
        if whole := re.match(r"GPU (\d+):", line):
            found.append(whole[1])
        elif part := re.match(r"\s+MIG .*\(UUID: (MIG-[^)]+)\)", line):
            if found and found[-1].isdigit():
                found.pop()
            found.append(part[1])
    return found


def _threads(environ: Mapping[str, str]) -> int | None:
    """What the user's environment asks for."""
    value = environ.get(THREADS, "").split(",")[0].strip()
    if not value:
        return None
    if not value.isdigit() or value == "0":
        raise RecipeError(f"{THREADS} must be at least 1 thread, got {environ[THREADS]!r}. Unset it, or set 1.")
    return int(value)


def _torch_has_cuda() -> bool:
    """Whether the installed PyTorch was built for CUDA, read from its version file without importing it."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.origin:
        return False
    version = Path(spec.origin).with_name("version.py")
    return version.is_file() and bool(re.search(r"^cuda\b[^=]*=\s*['\"]", version.read_text(encoding="utf-8"),
                                                re.MULTILINE))


def _has_nvidia_driver() -> bool:
    return Path("/dev/nvidiactl").exists() or Path("/dev/dxg").exists() or shutil.which("nvidia-smi") is not None


def _at_a_time(number: int) -> str:
    return "one after the other" if number == 1 else f"{number} at a time"
