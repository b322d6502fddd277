"""Registry: names to classes, filled by decorators in the modules that define them."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .errors import UnknownName, suggestion


class RegistryClash(KeyError):
    """Two modules register the same name."""

    def __str__(self) -> str:
        return Exception.__str__(self)


class Registry:
    """A table from names to objects; an object is registered under its own `__name__`.

    >>> BACKBONES = Registry("BACKBONE")
    >>> @BACKBONES.register()
    ... def resnet(): ...
    """

    def __init__(self, name: str):
        self._name = name
        self._obj_map: dict[str, Any] = {}

    def register(self, obj: Any = None, force: bool = False) -> Any:
        """Decorator `@R.register()`, or directly `R.register(obj)`.

        Args:
            force: replace what the name stood for.
        Raises:
            RegistryClash: the name is taken.
        """
        if obj is None:
            return lambda decorated: self.register(decorated, force)
        name = obj.__name__
        if name in self._obj_map and not force:
            first, second = _where(self._obj_map[name]), _where(obj)
            raise RegistryClash(f"{self._name} {name!r} is registered twice: by {first} and by {second}. "
                                "Rename one of them.")
        self._obj_map[name] = obj
        return obj

    def get(self, name: str) -> Any:
        if name not in self._obj_map:
            raise UnknownName(f"There is no {self._name} named {name!r}{suggestion(name, self._obj_map)}.")
        return self._obj_map[name]

    def registered_names(self) -> list[str]:
        """In order of registration."""
        return list(self._obj_map)

    def __contains__(self, name: str) -> bool:
        return name in self._obj_map

    def __iter__(self):
        return iter(self._obj_map.items())

    def __repr__(self) -> str:
        return f"Registry({self._name}: {', '.join(self._obj_map)})"


def _where(obj: Callable) -> str:
    import inspect

    try:
        return f"module {obj.__module__} ({inspect.getsourcefile(obj)})"
    except TypeError:
        return f"module {obj.__module__}"
