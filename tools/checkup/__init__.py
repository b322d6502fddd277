"""Is this machine ready? One file per kind of question; the command line is tools/doctor.py."""
from __future__ import annotations

from dataclasses import dataclass

OK, NOTE, PROBLEM = "ok", "note", "problem"


@dataclass(frozen=True)
class Finding:
    """Attributes:
        area: what was looked at, e.g. "GPU". text: what was found.
        state: OK; NOTE, which limits something; PROBLEM, which stops something.
        way_out: what to do, for a NOTE or PROBLEM.
        short: a few words for the last line.
    """

    area: str
    text: str
    state: str = OK
    way_out: str = ""
    short: str = ""
