"""GPU, cores, memory and room on disk."""
from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tools.checkup import NOTE, PROBLEM, Finding
from tools.machine import cores, free_memory

_GIB = 2 ** 30
_LITTLE_DISK, _LITTLE_MEMORY, _LITTLE_SHARED = 2 * _GIB, 4 * _GIB, _GIB // 4


def check(folders: dict[str, Path]) -> Iterator[Finding]:
    """`folders`: {what it is for: where}, which need room; runs end in the first, so that one has to be writable."""
    yield from gpus()
    yield processor()
    yield memory()
    for number, (use, folder) in enumerate(folders.items()):
        yield room(use, folder, PROBLEM if number == 0 else NOTE)


def gpus() -> Iterator[Finding]:
    """A finding for each GPU, on which a product is computed; or why there is none."""
    import torch

    if not torch.cuda.is_available():
        if shutil.which("nvidia-smi") and Path("/dev/nvidiactl").exists():
            built = f"is built for CUDA {torch.version.cuda}" if torch.version.cuda else "is a build for CPUs"
            hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
            why = f"PyTorch {torch.__version__} {built}" if hidden is None else f"CUDA_VISIBLE_DEVICES is {hidden!r}"
            yield Finding("GPU", f"there is one, but PyTorch does not see it: {why}", NOTE,
                          "unset CUDA_VISIBLE_DEVICES, or install a PyTorch that fits the driver (nvidia-smi names its "
                          "CUDA version)")
        else:
            yield Finding("GPU", "none; everything runs on the CPU")
        return
    for number in range(torch.cuda.device_count()):
        name = torch.cuda.get_device_name(number)
        try:
            free, total = torch.cuda.mem_get_info(number)
            side = torch.ones(64, 64, device=f"cuda:{number}")
            if float((side @ side).sum()) != 64 ** 3:
                raise RuntimeError("a product of ones came out wrong")
        except RuntimeError as error:
            yield Finding("GPU", f"{number}: {name} does not compute ({str(error).splitlines()[0]})", PROBLEM,
                          "end other programs on it, or install a PyTorch that knows this GPU; USE_CUDA False "
                          "takes the CPU")
            continue
        used = "; the first one is used, CUDA_VISIBLE_DEVICES picks another" if number == 0 and \
            torch.cuda.device_count() > 1 else ""
        text = f"{number}: {name}, {free / _GIB:.1f} of {total / _GIB:.1f} GiB free{used}"
        if free < 2 * _GIB:
            yield Finding("GPU", text, NOTE, "end the other programs that hold its memory (nvidia-smi names them)")
        else:
            yield Finding("GPU", text)


def processor() -> Finding:
    import torch

    allowed, threads = cores(), torch.get_num_threads()
    text = f"cores: {allowed}, PyTorch's threads: {threads}"
    if threads > allowed:
        return Finding("CPU", text, NOTE, f"export OMP_NUM_THREADS={allowed}: more threads than cores are slow")
    return Finding("CPU", text)


def memory() -> Finding:
    """Main memory that this process may take, and shared memory, through which loaders hand over batches."""
    free = free_memory()
    text = "unknown" if free is None else f"{free / _GIB:.1f} GiB free"
    shared = shutil.disk_usage("/dev/shm").free if Path("/dev/shm").is_dir() else None
    if free is not None and free < _LITTLE_MEMORY:
        return Finding("memory", text, NOTE, "end other programs; a smaller DATALOADER.TRAIN_X.BATCH_SIZE or "
                       "TRAIN.MAX_TOKENS needs less")
    if shared is not None and shared < _LITTLE_SHARED:
        return Finding("memory", f"{text}; shared memory {shared / 2 ** 20:.0f} MiB", NOTE,
                       "give the container more (docker run --shm-size 2g), or set DATALOADER.NUM_WORKERS 0")
    return Finding("memory", text)


def room(use: str, folder: Path, if_not: str) -> Finding:
    """Whether a folder, or what will hold it, can be written to (`if_not`: the state where it cannot) and has room."""
    place = folder.expanduser().absolute()
    existing = next(path for path in (place, *place.parents) if path.exists())
    text = f"{use} in {place}"
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
        free = shutil.disk_usage(existing).free
    except OSError as error:
        return Finding("disk", f"{text}: cannot be written to ({error.strerror})", if_not,
                       f"make {existing} writable, or name another place (OUTPUT, DATA, CLIP_CACHE, XDG_CACHE_HOME)")
    text = f"{text}: {free / _GIB:,.1f} GiB free"
    return Finding("disk", text, NOTE, "remove what is not needed there") if free < _LITTLE_DISK else \
        Finding("disk", text)
