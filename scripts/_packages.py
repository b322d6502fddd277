"""Compare this interpreter's environment with setup.py: prints what is missing, one line; exit code 1 if anything is.

Usage: python scripts/_packages.py [extra ...]. Reads installed metadata only, so it takes milliseconds.
"""
from __future__ import annotations

import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.dont_write_bytecode = True
from setup import EXTRAS, REQUIRES  # noqa: E402


def numbers(release: str) -> tuple[int, ...]:
    """Leading integers of a version: "2.4.0+cpu" -> (2, 4, 0)."""
    return tuple(int(n) for n in re.match(r"[\d.]*", release).group().strip(".").split(".") if n)


def problem(requirement: str) -> str | None:
    """What is wrong with one "name>=version", or None."""
    name, least = requirement.split(">=")
    try:
        found = version(name)
    except PackageNotFoundError:
        return name
    return f"{requirement} (has {found})" if numbers(found) < numbers(least) else None


def missing(extras: list[str]) -> list[str]:
    if sys.version_info < (3, 10):
        return [f"Python>=3.10 (has {sys.version_info[0]}.{sys.version_info[1]})"]
    wanted = [*REQUIRES, *(requirement for extra in extras for requirement in EXTRAS[extra])]
    return [text for text in map(problem, wanted) if text]


if __name__ == "__main__":
    lacking = missing(sys.argv[1:])
    if lacking:
        print(", ".join(lacking))
    sys.exit(bool(lacking))
