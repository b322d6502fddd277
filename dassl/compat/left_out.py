"""Names of Dassl 0.6.3 that are not here: asking for one says so, and where to read more."""
from __future__ import annotations

from collections.abc import Callable, Iterable


def refuse(package: str, names: Iterable[str], have: Iterable[str]) -> Callable[[str], object]:
    """A module's `__getattr__` that explains `names`; an unknown name is an AttributeError as always."""
    names, have = frozenset(names), sorted(have)

    def __getattr__(name: str):
        if name in names:
            raise ImportError(f"{package}.{name} of Dassl 0.6.3 is left out here (dassl/COMPATIBILITY.md). There are "
                              f"{', '.join(have)}. Copy its file from Dassl.pytorch into your project, or load it as a "
                              "plugin: what such files import is here.")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return __getattr__
