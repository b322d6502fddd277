"""Find modules that register trainers or datasets, import them, and let them add their config keys."""
from __future__ import annotations

import contextlib
import importlib
import logging
import pkgutil
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from dassl.compat import repository
from dassl.compat.extend import extend as extend_config
from dassl.compat.repository import place
from dassl.utils.errors import UserError
from dassl.utils.registry import Registry

logger = logging.getLogger(__name__)

ENTRY_POINT_GROUPS = ("dassl.trainers", "dassl.datasets")
_whole_packages: set[str] = set()       # of which `discover` imported every module
_only_add: set[Callable] = set()        # their `extend_cfg`s that were seen to leave alone what is there


def discover(package: str) -> list[ModuleType]:
    """Import every module of a package folder, but none that starts with "_" and no sub-package.

    A module that cannot be imported stops the run with its own traceback: half a folder is worse than an error.
    """
    folder = importlib.import_module(package)
    _whole_packages.add(package)
    names = [m.name for m in pkgutil.iter_modules(folder.__path__) if not m.ispkg and not m.name.startswith("_")]
    return [folder, *(importlib.import_module(f"{package}.{name}") for name in sorted(names))]


def load_plugin(plugin: str, replace: bool = False) -> ModuleType:
    """Import a file (path/to/mine.py), a dotted module, or an installed plugin by the name of its entry point.

    A file of somebody's repository imports what it imports there: `from .other import x`, and the `clip`, `datasets`,
    `trainers` or `utils` of that repository (`dassl.compat.repository`).

    Args:
        replace: names that the plugin registers and that are taken become its own; otherwise that is an error.
    Raises:
        UserError: there is no such file or module, or a name is taken.
    """
    path = Path(plugin).expanduser()
    if path.suffix != ".py":
        return _load_module(plugin, replace)
    if not path.is_file():
        raise UserError(f"No plugin file at {path.absolute()}.")
    path = path.resolve()
    for there in list(sys.modules.values()):    # a file of trainers/, or one that was loaded before
        if getattr(there, "__dict__", {}).get("__file__") == str(path):
            return there
    with _names_of(path, replace):
        return repository.load(path)


def _load_module(plugin: str, replace: bool) -> ModuleType:
    try:
        with _names_of(plugin, replace):
            return importlib.import_module(plugin)
    except ModuleNotFoundError as error:
        if not error.name or not plugin.startswith(error.name):
            raise
        for entry in (e for group in ENTRY_POINT_GROUPS for e in entry_points(group=group) if e.name == plugin):
            with _names_of(entry.module, replace):
                return _module_of(entry)
        raise UserError(f"--plugin takes a path ending in .py, a module that can be imported, or the name of an "
                        f"installed plugin, got {plugin!r}.") from error


@contextlib.contextmanager
def _names_of(plugin: str | Path, replace: bool) -> Iterator[None]:
    """What becomes of names that are taken: the plugin's own are refused or replace ours; its neighbours' stay ours."""

    def rule(registry: str, name: str, newcomer: type, owner: type) -> bool:
        if plugin not in (newcomer.__module__, Path(place(newcomer))):
            return repository.stays(registry, name, newcomer, owner)
        if replace:
            logger.warning("%s %s is that of %s in this run, not that of %s", registry, name, place(newcomer),
                           owner.__module__)
            return True
        raise UserError(f"{registry} {name} of {place(newcomer)} is already registered by {owner.__module__}. Give "
                        "one of them another class name, or let the plugin have the name in this run with --replace.")

    with Registry.clashes(rule):
        yield


def load_entry_points(groups: Iterable[str] = ENTRY_POINT_GROUPS) -> list[ModuleType]:
    """Import what installed packages offer; one that is broken is reported and skipped."""
    modules = []
    for group in groups:
        for entry in _installed(group, tuple(sys.path)):
            try:
                with Registry.all_or_nothing():
                    modules.append(_module_of(entry))
            except (Exception, SystemExit) as error:  # somebody else's package must not stop this run
                logger.warning("Skipped the installed plugin %s of %s: %s: %s. --plugin %s shows why.", entry.name,
                               group, type(error).__name__, str(error).rstrip("."), entry.name)
    return modules


@lru_cache(maxsize=8)
def _installed(group: str, path: tuple[str, ...]) -> tuple:
    """Of the packages on `path`; reading the facts of all of them takes longer than the rest of a config."""
    return tuple(entry_points(group=group))


def _module_of(entry) -> ModuleType:
    loaded = entry.load()
    return loaded if isinstance(loaded, ModuleType) else sys.modules[loaded.__module__]


def extend_all(cfg, modules: Iterable[ModuleType]) -> None:
    """Call `extend_cfg(cfg)` of every module that defines one itself, each once."""
    done = set()
    for module in modules:
        extend = getattr(module, "extend_cfg", None)
        if extend is not None and extend not in done and extend.__module__ == module.__name__:
            done.add(extend)
            if extend in _only_add:                         # comparing all keys takes most of the time
                extend(cfg)
            elif extend_config(cfg, extend, getattr(module, "__file__", None) or module.__name__) \
                    and module.__package__ in _whole_packages:
                _only_add.add(extend)
