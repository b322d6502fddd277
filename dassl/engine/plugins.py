"""Find modules that register trainers or datasets, import them, and let them add their config keys."""
from __future__ import annotations

import hashlib
import importlib
import importlib.util
import logging
import pkgutil
import sys
from collections.abc import Iterable
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from dassl.config.extend import extend as extend_config
from dassl.utils.errors import UserError

logger = logging.getLogger(__name__)

ENTRY_POINT_GROUPS = ("dassl.trainers", "dassl.datasets")


def discover(package: str) -> list[ModuleType]:
    """Import every module of a package folder, but none that starts with "_" and no sub-package.

    A module that cannot be imported stops the run with its own traceback: half a folder is worse than an error.
    """
    folder = importlib.import_module(package)
    names = [m.name for m in pkgutil.iter_modules(folder.__path__) if not m.ispkg and not m.name.startswith("_")]
    return [folder, *(importlib.import_module(f"{package}.{name}") for name in sorted(names))]


def load_plugin(plugin: str) -> ModuleType:
    """Import a file (path/to/mine.py) or a dotted module.

    Raises:
        UserError: there is no such file or module.
    """
    path = Path(plugin).expanduser()
    if path.suffix != ".py":
        try:
            return importlib.import_module(plugin)
        except ModuleNotFoundError as error:
            if error.name and plugin.startswith(error.name):
                raise UserError(f"--plugin takes a path ending in .py or a module that can be imported; got "
                                f"{plugin!r}.") from error
            raise
    if not path.is_file():
        raise UserError(f"No plugin file at {path.absolute()}.")
    path = path.resolve()
    name = f"dassl_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def load_entry_points(groups: Iterable[str] = ENTRY_POINT_GROUPS) -> list[ModuleType]:
    """Import what installed packages offer; one that is broken is reported and skipped."""
    modules = []
    for group in groups:
        for entry in entry_points(group=group):
            try:
                loaded = entry.load()
            except Exception as error:  # somebody else's package must not stop this run
                logger.warning("Skipped the installed plugin %s of %s: %s: %s", entry.name, group,
                               type(error).__name__, error)
                continue
            modules.append(loaded if isinstance(loaded, ModuleType) else sys.modules[loaded.__module__])
    return modules


def extend_all(cfg, modules: Iterable[ModuleType]) -> None:
    """Call `extend_cfg(cfg)` of every module that defines one itself, each once."""
    done = set()
    for module in modules:
        extend = getattr(module, "extend_cfg", None)
        if extend is not None and extend not in done and extend.__module__ == module.__name__:
            done.add(extend)
            extend_config(cfg, extend, getattr(module, "__file__", None) or module.__name__)
