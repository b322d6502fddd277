"""What this process may take of the machine, by hand: psutil tells what the machine has, a container may give less.

Imports nothing heavy.
"""
from __future__ import annotations

import os
import re
from pathlib import Path

_CGROUP = "/sys/fs/cgroup/"
# (limit, used, statistics, what of the used can be taken back: pages of files) in the second and the first version.
_MEMORY = (("memory.max", "memory.current", "memory.stat", "inactive_file"),
           ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat",
            "total_inactive_file"))


def cores() -> int:
    """CPU cores: those of the process's affinity, and its container's share, at least 1."""
    have = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _read(_CGROUP + "cpu.max").partition(" ")
    if not quota:
        quota, period = (_read(f"{_CGROUP}cpu/cpu.cfs_{name}_us") for name in ("quota", "period"))
    quota, period = quota.strip(), period.strip()
    return max(1, min(have, int(quota) // int(period))) if quota.isdigit() and period.isdigit() else have


def physical_cores() -> int:
    """Cores that this process may use, two threads of one core counted once."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    return len({_read(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list") or str(cpu)
                for cpu in os.sched_getaffinity(0)})


def free_memory() -> int | None:
    """Bytes that may still be used, by the machine and its container's limit; None where the system does not tell."""
    available = re.search(r"MemAvailable:\s+(\d+) kB", _read("/proc/meminfo"))
    bounds = [int(available[1]) << 10] if available else []
    for limit, used, statistics, pages in _MEMORY:
        limit, used = _read(_CGROUP + limit).strip(), _read(_CGROUP + used).strip()
        if limit.isdigit() and used.isdigit():
            back = re.search(rf"^{pages} (\d+)$", _read(_CGROUP + statistics), re.MULTILINE)
            bounds.append(max(0, int(limit) - int(used) + (int(back[1]) if back else 0)))
    return min(bounds, default=None)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""
