"""dassl-prompts from Python: train a run, load one, look at datasets, and all runs as a table (docs/python.md).

Imports nothing heavy until a function is called.
"""
from __future__ import annotations

import importlib
import sys

from dassl import __version__
from dassl_prompts.commands import ROOT

_LIBRARY = "tools.running.library"
_WHERE = {"Result": _LIBRARY, "dataset": _LIBRARY, "load": _LIBRARY, "train_run": _LIBRARY, "runs": _LIBRARY}

__all__ = ["Result", "__version__", "dataset", "load", "runs", "train_run"]


def __getattr__(name: str):
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if str(ROOT) not in sys.path:               # trainers, datasets and tools are never installed under these names
        sys.path.insert(0, str(ROOT))
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return __all__
