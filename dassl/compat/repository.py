"""The repository around a plugin file: its code imports its own packages, ours imports ours, whatever their names.

Its modules are in sys.modules below a name of their own (`dassl_plugin_<hash>.clip` next to our `clip`), and have
builtins of their own, whose `import clip` means that one. What a repository lacks is ours or an installed package;
`dassl` and the standard library are never its own. Names that newer versions of Python and setuptools took away can
still be imported.
"""
from __future__ import annotations

import builtins
import contextlib
import hashlib
import importlib
import importlib.machinery
import importlib.util
import logging
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from dassl.utils.registry import Registry

logger = logging.getLogger(__name__)

after_import: list[Callable[[ModuleType], None]] = []       # called with every module of a repository
_NAME = "dassl_plugin_"                                     # begins the name of a repository
_HOUSES = ("trainers", "datasets")                          # packages that stand in the folder of a public repository
_NEVER_THEIRS = {"dassl", *sys.stdlib_module_names}
_COPY_OF_DASSL = re.compile(r"(?:\w+\.dassl|\w+_dassl)(\..*)?")     # Dassl.dassl.engine, my_dassl.engine: it is ours
_OURS = Path(__file__).resolve().parents[2]
_roots: dict[str, Path] = {}
_plugins: dict[str, Path] = {}                              # module -> the file that --plugin named


def package_around(folder: Path) -> str:
    """The repository that a folder belongs to, as the name that its modules stand below."""
    root = _root(folder)
    package = f"{_NAME}{hashlib.sha256(str(root).encode()).hexdigest()[:8]}"
    _roots[package] = root
    if _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)
    _make_package(package, root if root != _OURS else None)
    importlib.invalidate_caches()
    return package


def load(path: Path) -> ModuleType:
    """Import a resolved plugin file as a module of its repository; a package around it is not run, only made."""
    name = package_around(path.parent)
    folder = root = _roots[name]
    for part in path.parent.relative_to(root).parts:
        folder, name = folder / part, f"{name}.{part}"
        _make_package(name, folder)
    name = f"{name}.{path.stem.replace('.', '_')}"
    _plugins[name] = path
    return importlib.import_module(name)


def builtins_of(package: str) -> dict[str, Any]:
    """What code of that repository finds as its builtins, `__builtins__` of its globals."""
    return {**vars(builtins), "__import__": _importer(package)}


def root_of(name: str) -> Path | None:
    """The folder of the repository that a module belongs to, if any."""
    return _roots.get(name.partition(".")[0])


def place(cls: type) -> str:
    """The module of a class, or the file where that is a plugin's."""
    is_file = root_of(cls.__module__) is not None and cls.__module__ in sys.modules
    return sys.modules[cls.__module__].__file__ if is_file else cls.__module__


def stays(registry: str, name: str, newcomer: type, owner: type) -> bool:
    """A rule of `Registry.clashes`: a taken name that a plugin's neighbour registers stays its owner's."""
    logger.info("%s %s stays with %s; %s also has one", registry, name, owner.__module__, place(newcomer))
    return False


def _root(folder: Path) -> Path:
    """The nearest folder with a train.py or .git, three levels up at most; else the one around trainers/, datasets/."""
    for place in (folder, *folder.parents[:3]):
        if (place / "train.py").is_file() or (place / ".git").exists() and place != Path.home():
            return folder if "." in str(folder.relative_to(place)).lstrip(".") else place     # no name of a package
    return folder.parent if folder.name in _HOUSES else folder


def _make_package(name: str, folder: Path | None) -> None:
    """Without running its __init__.py, which in public repositories imports all trainers and what these need."""
    if name not in sys.modules:
        module = importlib.util.module_from_spec(importlib.machinery.ModuleSpec(name, None, is_package=True))
        module.__path__ = [str(folder)] if folder else []
        sys.modules[name] = module


class _Finder:
    """On sys.meta_path: modules of repositories get their loader."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None):
        if root_of(name) is None:
            return None
        if name in _plugins:
            loader = _Loader(name, str(_plugins[name]))
            return importlib.util.spec_from_file_location(name, _plugins[name], loader=loader)
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = _Loader(name, spec.origin)
        return spec


class _Loader(importlib.machinery.SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["__builtins__"] = builtins_of(module.__name__.partition(".")[0])
        with contextlib.nullcontext() if module.__name__ in _plugins else Registry.clashes(stays):
            super().exec_module(module)
        for call in after_import:
            call(module)


def _importer(package: str) -> Callable:
    """The `__import__` of a repository's code."""

    def import_module(name, parent=None):
        return importlib.import_module(name, parent) if parent else their_import(name, fromlist=("__name__",))

    own_importlib = ModuleType("importlib")
    own_importlib.__dict__.update({**vars(importlib), "import_module": import_module})

    def their_import(name, globals=None, locals=None, fromlist=(), level=0):
        if name == "importlib" and not level:
            return own_importlib
        if not level and any(place == name for place, _ in _GONE) and (older := _with_gone(name, fromlist or ())):
            return older
        if not level and name in _GONE_WHOLE and importlib.util.find_spec(name) is None:
            return _GONE_WHOLE[name]()
        top, _, rest = name.partition(".")
        if not level and fromlist and (copy := _COPY_OF_DASSL.fullmatch(name)):
            name, top = f"dassl{copy[1] or ''}", "dassl"
        if level or top in _NEVER_THEIRS:
            return builtins.__import__(name, globals, locals, fromlist, level)
        parent = package
        if not _has(parent, name):              # a name that nobody has may be a file next to it
            parent = (globals or {}).get("__package__") or package
            if top in sys.modules or importlib.util.find_spec(top) or not _has(parent, name):
                return builtins.__import__(name, globals, locals, fromlist)
        module = importlib.import_module(f"{parent}.{name}")
        for item in fromlist or ():             # `from trainers import coop`, where only ours has it
            if item != "*" and not hasattr(module, item) and not _has(parent, f"{name}.{item}"):
                with contextlib.suppress(ImportError):
                    setattr(module, item, importlib.import_module(f"{name}.{item}"))
        return builtins.__import__(f"{parent}.{name}", globals, locals, fromlist) if fromlist \
            else sys.modules[f"{parent}.{top}"]

    return their_import


def _packaging() -> ModuleType:
    import packaging.version

    return packaging


_GONE = {("pkg_resources", "packaging"): _packaging,        # with setuptools 82; copies of OpenAI's clip.py import it
         ("re", "template"): lambda: re.compile,            # with Python 3.13; imported by mistake, never called
         ("audioop", "tomono"): lambda: None,               # likewise
         ("turtle", "forward"): lambda: None}               # where Python has no Tk; imported by mistake, never called


_GONE_WHOLE = {"imp": lambda: ModuleType("imp"),            # with Python 3.12; imported by mistake, never called
               "pickle5": lambda: importlib.import_module("pickle")}    # a backport, which no longer installs


def _with_gone(name: str, items: Sequence[str]) -> ModuleType | None:
    """The module with those of `items` that newer versions of it lack; None where that is none of them."""
    try:
        now = vars(importlib.import_module(name))
    except ImportError:
        now = {}
    gone = {item: _GONE[name, item] for item in items if (name, item) in _GONE and item not in now}
    if not gone:
        return None
    older = ModuleType(name)
    older.__dict__.update({**now, **{item: make() for item, make in gone.items()}})
    return older


def _has(parent: str, name: str) -> bool:
    """Whether a package of a repository has that module; packages between are imported. Folders need Python in them."""
    whole = f"{parent}.{name}"
    if whole in sys.modules:
        return True
    package = whole.rpartition(".")[0]
    if package != parent and not _has(parent, package.removeprefix(f"{parent}.")):
        return False
    path = getattr(importlib.import_module(package), "__path__", None)
    spec = _Finder.find_spec(whole, path) if path else None
    return spec is not None and (spec.origin is not None or any(
        found for folder in spec.submodule_search_locations or () for pattern in ("*.py", "*/*.py")
        for found in Path(folder).glob(pattern)))
