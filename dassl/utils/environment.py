"""What a run ran on: versions, machine, devices, commit."""
from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import torch

PACKAGES = ("torch", "torchvision", "open-clip-torch", "numpy", "pillow", "yacs")


def versions() -> dict[str, str]:
    """Python and the packages that results depend on; those not installed are left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_commit(folder: Path = Path(__file__).parent) -> str | None:
    """Commit of the checkout that `folder` lies in, with "+" when it was changed; None outside a checkout."""
    def git(*args: str) -> str | None:
        try:
            done = subprocess.run(["git", *args], cwd=folder, capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    return commit and commit + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({platform.machine()})"


def collect_env_info() -> str:
    """Versions and devices, one per line."""
    lines = [f"{name}: {version}" for name, version in versions().items()]
    lines += [f"platform: {platform.platform()}", f"executable: {sys.executable}",
              f"CPU cores: {os.cpu_count()}, torch threads: {torch.get_num_threads()}"]
    if torch.cuda.is_available():
        lines += [f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"]
        for i in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(i)
            lines += [f"GPU {i}: {properties.name}, {properties.total_memory / 2**30:.0f} GiB"]
    else:
        lines += ["GPU: none that torch can use"]
    return "\n".join(lines)
