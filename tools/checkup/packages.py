"""Python, its packages, and whether this checkout's own are the ones that are imported. Imports nothing at its head."""
from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from tools.checkout import ROOT
from tools.checkup import NOTE, PROBLEM, Finding

SHOWN = ("torch", "torchvision", "open_clip_torch", "numpy", "pillow")
NEEDED_FOR = {"serve": "tools/predict.py --serve", "onnx": "tools/export.py", "share": "tools/share.py with the hub",
              "cluster": "tools/sweep.py --launcher", "robust": "tools/evaluate.py", "docs": "mkdocs build",
              "test": "bash scripts/test.sh"}


def check() -> Iterator[Finding]:
    """Versions against setup.py, and one import of what often does not fit together."""
    here = f"{platform.python_implementation()} {platform.python_version()} at {sys.executable}"
    shown = ", ".join(f"{name} {_version(name)}" for name in SHOWN)
    if not (ROOT / "scripts").is_dir():             # installed by pip, which has looked at the versions
        yield Finding("Python", f"{here}; {shown}")
        return
    for folder in (ROOT, ROOT / "scripts"):
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
    from _packages import missing

    from setup import EXTRAS

    if lacking := missing([]):
        yield Finding("Python", f"{here}; lacks {', '.join(lacking)}", PROBLEM,
                      f"{sys.executable} -m pip install -e {ROOT}, or call the scripts in scripts/, which make .venv")
        return
    yield Finding("Python", f"{here}; {shown}")
    for extra in EXTRAS:
        if lacking := missing([extra]):
            use = NEEDED_FOR.get(extra, f"the extra {extra}")
            yield Finding("optional", f"{', '.join(lacking)} not installed, needed for {use}", NOTE,
                          f"{sys.executable} -m pip install -e \"{ROOT}[{extra}]\"")
    try:
        import torchvision  # noqa: F401  a build for another PyTorch fails here, with a long traceback

        from tools import train

        train.register()
    except Exception as error:  # whatever a broken installation raises, it is what the user wants to hear
        yield Finding("imports", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}", PROBLEM,
                      "install torch and torchvision together, from one index, in a new environment; "
                      "call from the checkout")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "?"
