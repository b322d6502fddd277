"""results.json: one run's result and everything that made it, in one file."""
from __future__ import annotations

import datetime
import hashlib
import json
import os
import os.path as osp
import platform
import shlex
import subprocess
import sys
from functools import cache
from importlib import metadata

import torch

from dassl.compat import cpu_shim

from .tools import cache_dir, write_json

VERSION = 2                         # of results.json; 1 had neither this nor a cell
_PACKAGES = ("torch", "torchvision", "open_clip_torch", "numpy")


def fewshot_hash(data_source, root: str) -> str:
    """sha256 of the sorted list of (path, label): two runs with equal hashes saw the same images.

    Paths count from `root`, or from the cache folder or the folder that holds them all, so the machine does not matter.
    """
    paths = [osp.abspath(osp.expanduser(d.impath)) for d in data_source]
    bases = [osp.abspath(osp.expanduser(base)) for base in (root, str(cache_dir())) if base]
    under = [base for base in bases if all(p.startswith(base + osp.sep) for p in paths)]
    base = under[0] if under else osp.commonpath([osp.dirname(p) for p in paths])
    return _sha256(sorted((osp.relpath(p, base), d.label) for p, d in zip(paths, data_source, strict=True)))


def config_hash(cfg) -> str:
    """sha256 of the config without the folders it reads and writes."""
    plain = json.loads(json.dumps(cfg))
    for section, key in ((plain, "OUTPUT_DIR"), (plain, "RESUME"), (plain["DATASET"], "ROOT")):
        section.pop(key)
    return _sha256(plain)


def _sha256(value) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def describe_run(cfg, dataset, device: torch.device) -> dict:
    """What any run can say of itself: data, settings, versions, machine; without a dataset, nothing of the data."""
    return {
        "trainer": cfg.TRAINER.NAME, "dataset": cfg.DATASET.NAME, "shots": cfg.DATASET.NUM_SHOTS, "seed": cfg.SEED,
        "classes": cfg.DATASET.get("SUBSAMPLE_CLASSES", "all"),
        "num_classes": dataset and dataset.num_classes,
        "split_hash": dataset and fewshot_hash(dataset.train_x, cfg.DATASET.ROOT),
        "lists": getattr(dataset, "lists", None),       # whether split and few-shot list are the published ones
        "class_hash": dataset and _sha256(list(dataset.classnames)),
        "config_hash": config_hash(cfg), "transforms": list(cfg.INPUT.TRANSFORMS),
        "peak_memory_mb": peak_memory_mb(device),
        "versions": {"python": platform.python_version(), **{p: version_of(p) for p in _PACKAGES}},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "machine": _machine(), "threads": torch.get_num_threads(),
        **({"cuda_calls": "run on the CPU (--allow-cpu-shim)"} if cpu_shim.is_on() else {}),
        "commit": _commit(), "command": shlex.join([osp.basename(sys.executable), *sys.argv]),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def write_record(record: dict, folder: str) -> str:
    """Write results.json, whole or not at all; returns its path."""
    path = osp.join(folder, "results.json")
    write_json(record, path)
    return path


def peak_memory_mb(device: torch.device) -> int | None:
    """Peak of the GPU's allocations, or of this process on a CPU, in MiB; None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) >> 20
    try:
        import resource  # not on Windows
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak >> (20 if sys.platform == "darwin" else 10)


def _machine() -> str:
    """System, processor and its cores: "Linux-6.1-x86_64, AMD EPYC 7763, 2 cores"."""
    return f"{platform.platform(terse=True)}, {processor_name()}, {os.cpu_count()} cores"


def processor_name() -> str:
    """As the system calls it: "AMD EPYC 7763"."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


@cache
def version_of(package: str) -> str | None:
    """Of an installed package; None for any other."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@cache
def _commit() -> str | None:
    try:
        reply = subprocess.run(["git", "rev-parse", "HEAD"], cwd=osp.dirname(osp.abspath(__file__)), text=True,
                               capture_output=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return reply.stdout.strip() or None
