"""Trainers and datasets of this checkout, of installed packages and of plugins, registered; its folders and names."""
from __future__ import annotations

import importlib
import importlib.machinery
import os
import sys
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

IS_CHECKOUT = (ROOT / "setup.py").is_file()     # else what `pip install` put into site-packages
_EVERYDAY = ("datasets", "clip")                # packages of others have these names too


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
    for name in filter(lambda name: (ROOT / name).is_dir(), ("dassl", "clip", "trainers", "datasets")):
        found = [Path(folder).resolve() for folder in importlib.import_module(name).__path__]
        if ROOT / name not in found:
            raise ImportError(f"{name} was imported from {found[0]} and not from {ROOT}. Import tools.train before "
                              f"that package, or take {found[0].parent} off PYTHONPATH.")


def default_folder(name: str) -> str:
    """Where runs ("output") or datasets ("data") are kept unless $OUTPUT or $DATA says otherwise.

    The checkout's folder, named as short as can be from here. What pip installed keeps runs in the current folder and
    datasets in the cache, so that neither appears among the packages, nor data wherever a notebook happens to lie.
    """
    if given := os.environ.get(name.upper()):
        return given
    if IS_CHECKOUT:
        return name if Path.cwd() == ROOT else str(ROOT / name)
    return name if name == "output" else str(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() /
                                             "dassl" / name)


def warn_of_hidden_packages() -> None:
    """Warn once for each package of others that cannot be imported any more because ours has its name."""
    elsewhere = [place for place in sys.path if place and Path(place).resolve() != ROOT]
    for name in _EVERYDAY:
        spec = importlib.machinery.PathFinder.find_spec(name, elsewhere)
        ours = {ROOT / name, Path(importlib.import_module("dassl").__file__).parents[1] / name}
        if spec and spec.origin and Path(spec.origin).resolve().parent not in ours:
            warnings.warn(f"`import {name}` now means this project's {ROOT / name}, and no longer the package "
                          f"{Path(spec.origin).parent}. Use that one in another process.", stacklevel=3)
