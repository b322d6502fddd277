"""Errors that are the user's to mend, and the suggestion that goes with an unknown name."""
from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something a user, a file or a machine got wrong. Its message is one paragraph: the rule, the value, the way out."""

    def __str__(self) -> str:
        return Exception.__str__(self)      # KeyError, a frequent second parent, would show the repr


class UnknownName(UserError, KeyError):
    """A name that nothing is registered under, or a config key that does not exist."""


class WrongValue(UserError, ValueError):
    """A value of the wrong type or out of its range."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` most likely meant, whatever the case; None if nothing is near."""
    by_lower = {k.lower(): k for k in known}
    close = difflib.get_close_matches(str(name).lower(), by_lower, n=1, cutoff=0.5)
    return by_lower[close[0]] if close else None


def suggestion(name: str, known: Iterable[str], limit: int = 40) -> str:
    """" (did you mean 'X'?)" where something is near, else the list of known names; "" when there are none."""
    known = sorted(known)
    if (near := nearest(name, known)) is not None:
        return f" (did you mean {near!r}?)"
    if not known:
        return ""
    more = f" and {len(known) - limit} more" if len(known) > limit else ""
    return f" (known: {', '.join(known[:limit])}{more})"
