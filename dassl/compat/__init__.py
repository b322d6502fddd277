"""What is here only so that code written for Dassl 0.6.3 runs. Its old import names are faces, made by `face`."""
from __future__ import annotations

import importlib
import pkgutil
import sys


def face(old: str, new: str, **files: str) -> None:
    """Make the module or package `old` another name of `new` and of all that is in it: the same objects by both.

    To be called while `old` is being imported.

    Args:
        files: modules that Dassl has in `old`, each with the one in `new` that holds what was there.
    """
    sys.modules[old] = module = importlib.import_module(new)
    for _, name, _ in pkgutil.iter_modules(getattr(module, "__path__", ())):
        sys.modules[f"{old}.{name}"] = importlib.import_module(f"{new}.{name}")
    for name, place in files.items():
        sys.modules[f"{old}.{name}"] = importlib.import_module(f"{new}.{place}")
