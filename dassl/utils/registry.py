"""Names to classes, with a suggestion for a name that is not there."""
from __future__ import annotations

import contextlib
import importlib
import logging
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping

from dassl.names import nearest

from .errors import UserError

logger = logging.getLogger(__name__)


class UnknownName(UserError, KeyError):
    """A name that nothing is registered under."""

    __str__ = Exception.__str__


def builder(registry: Registry) -> Callable:
    """`build(name, verbose=True, **kwargs)`: what is registered under that name, called with `kwargs`."""

    def build(name: str, verbose: bool = True, **kwargs):
        if verbose:
            logger.info("%s: %s", registry._name, name)
        return registry.get(name)(**kwargs)

    return build


class Registry:
    """A table from name to class or function, filled by decorators.

    Args:
        name: what the table is of, for messages ("TRAINER").
        later: {name: module that registers it}, imported when that name is asked for; until then it is free.
    """

    _clash: Callable | None = None
    _all: weakref.WeakSet[Registry] = weakref.WeakSet()

    def __init__(self, name: str, later: Mapping[str, str] | None = None):
        self._name, self.later = name, dict(later or {})
        self._obj_map: dict[str, object] = {}
        self._aliases: dict[str, str] = {}
        self._all.add(self)

    def register(self, obj: Callable | None = None, force: bool = False, aliases: Iterable[str] = ()):
        """`@REGISTRY.register()` above a class, or `REGISTRY.register(cls)`; the name is the class's own.

        Args:
            aliases: other spellings that `get` understands, e.g. a paper's; they are listed nowhere.
        Raises:
            UserError: a name is taken by another module, unless `force`.
        """
        if obj is None:
            return lambda wrapped: self.register(wrapped, force, aliases)
        for name in (obj.__name__, *aliases):
            if name in self and not force and not self._may_take(name, obj):
                return obj
        self._aliases.pop(obj.__name__, None)
        self._obj_map[obj.__name__] = obj
        self._aliases.update(dict.fromkeys(aliases, obj.__name__))
        return obj

    def _may_take(self, name: str, obj: Callable) -> bool:
        taken = self.get(name)
        if Registry._clash is not None:
            return Registry._clash(self._name, name, obj, taken)
        raise UserError(f"{self._name} {name} of {obj.__module__} is already registered by {taken.__module__}. "
                        "Give one of them another class name, or register with force=True.")

    @classmethod
    @contextlib.contextmanager
    def clashes(cls, rule: Callable[[str, str, object, object], bool]) -> Iterator[None]:
        """Inside, `rule(this registry's name, taken name, newcomer, owner)` says whether the newcomer has the name."""
        before, cls._clash = cls._clash, staticmethod(rule)
        try:
            yield
        finally:
            cls._clash = before

    @classmethod
    @contextlib.contextmanager
    def all_or_nothing(cls) -> Iterator[None]:
        """What is registered inside, in any registry, is forgotten if an error ends it."""
        before = [(registry, dict(registry._obj_map), dict(registry._aliases)) for registry in cls._all]
        try:
            yield
        except BaseException:
            for registry, objects, aliases in before:
                registry._obj_map, registry._aliases = objects, aliases
            raise

    def get(self, name: str):
        name = self.canonical(name)
        if name not in self._obj_map and name in self.later:
            importlib.import_module(self.later[name])
        if name not in self._obj_map:
            hint = nearest(name, {**self.later, **self._obj_map})
            raise UnknownName(f"Unknown {self._name.lower()} {name!r}.{hint} "
                              f"Registered: {', '.join(sorted(self._obj_map)) or 'none'}.")
        return self._obj_map[name]

    def canonical(self, name: str) -> str:
        """The name that an alias stands for; any other name as it is."""
        return self._aliases.get(name, name)

    def registered_names(self) -> list[str]:
        return list(self._obj_map)

    def __contains__(self, name: str) -> bool:
        return self.canonical(name) in self._obj_map
