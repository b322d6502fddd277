"""Names in messages: the known one nearest to one that is not known, and lists of many. Imports nothing heavy."""
from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str]) -> str:
    """" Did you mean X?" for the known name nearest to `name`, or ""; upper and lower case, _ and - do not count."""
    found = closest(name, known)
    return "" if found is None else f" Did you mean {found}?"


def closest(name: str, known: Iterable[str]) -> str | None:
    """That name itself; None where none is near."""
    known = list(known)
    near = get_close_matches(_plain(name), map(_plain, known), 1, cutoff=0.5)
    alike = [k for k in known if near and _plain(k) == near[0]]         # of these, the one that is spelled most alike
    return (get_close_matches(name, alike, 1, cutoff=0) or [None])[0]


def listed(words: Iterable[str], most: int = 5) -> str:
    """"a, b and 3 more"."""
    words = list(words)
    return ", ".join(words[:most]) + (f" and {len(words) - most:,} more" if len(words) > most else "")


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")
