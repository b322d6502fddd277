"""In a container, what may be used is its share: of both versions of the kernel's groups, and of none."""
import pytest

from tools import machine

GIB = 1 << 30
CPU = [({"cpu.max": "150000 100000\n"}, 1), ({"cpu.max": "400000 100000\n"}, 4), ({"cpu.max": "max 100000\n"}, 16),
       ({"cpu/cpu.cfs_quota_us": "250000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2),
       ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 16), ({}, 16)]
SECOND = {"memory.max": f"{4 * GIB}\n", "memory.current": f"{3 * GIB}\n"}
FIRST = {"memory/memory.limit_in_bytes": f"{4 * GIB}\n", "memory/memory.usage_in_bytes": f"{3 * GIB}\n"}
MEMORY = [(SECOND, 1), (FIRST, 1), ({**SECOND, "memory.max": "max\n"}, 20), ({}, 20),
          ({**SECOND, "memory.stat": f"anon 7\ninactive_file {GIB}\n"}, 2),       # the kernel gives these pages back
          ({**FIRST, "memory/memory.stat": f"inactive_file 1\ntotal_inactive_file {GIB}\n"}, 2),
          ({**SECOND, "memory.current": f"{5 * GIB}\n"}, 0), ({**SECOND, "memory.max": f"{2 ** 63}\n"}, 20)]


@pytest.fixture
def files(monkeypatch):
    found = {"/proc/meminfo": f"MemTotal: 9 kB\nMemAvailable:   {20 * GIB >> 10} kB\n"}
    monkeypatch.setattr(machine, "_read", lambda path: found.get(path, ""))
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    return found


@pytest.mark.parametrize(("group", "cores"), CPU)
def test_a_containers_share_of_the_cpu_bounds_the_cores(group, cores, files):
    files.update({f"/sys/fs/cgroup/{name}": text for name, text in group.items()})
    assert machine.cores() == cores


@pytest.mark.parametrize(("group", "gigabytes"), MEMORY)
def test_a_containers_limit_less_what_it_holds_bounds_the_memory(group, gigabytes, files):
    files.update({f"/sys/fs/cgroup/{name}": text for name, text in group.items()})
    assert machine.free_memory() == gigabytes * GIB


def test_a_system_that_does_not_tell_is_said_to_be_unknown(files):
    files.clear()
    assert machine.free_memory() is None
