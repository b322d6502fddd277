"""Trainers and datasets of this checkout, of installed packages and of plugins, registered."""
from __future__ import annotations

import importlib
import sys
from pathlib import Path

from tools.runs.cell import ROOT


def register(plugins: list[str] = (), replace: bool = False) -> list:
    """Import all trainers and datasets: the checkout's, installed packages' and `plugins`; returns the modules.

    Args:
        replace: `plugins` may take over names that are registered by others.
    """
    own_packages_first()
    from dassl.engine.plugins import discover, load_entry_points, load_plugin

    return [*discover("datasets"), *discover("trainers"), *load_entry_points(),
            *(load_plugin(plugin, replace) for plugin in plugins)]


def own_packages_first() -> None:
    """Import our dassl, clip, trainers and datasets, whatever else is installed under these everyday names."""
    if sys.path[0] != str(ROOT):
        sys.path.insert(0, str(ROOT))
    for name in ("dassl", "clip", "trainers", "datasets"):
        found = [Path(folder).resolve() for folder in importlib.import_module(name).__path__]
        if ROOT / name not in found:
            raise ImportError(f"{name} was imported from {found[0]} and not from {ROOT}. Import tools.train before "
                              f"that package, or take {found[0].parent} off PYTHONPATH.")
