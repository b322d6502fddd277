"""The state of a sweep's runs while other processes make them."""
from __future__ import annotations

from pathlib import Path

from tools.runs.folder import LOCK


def state_table(planned: list, waiting: dict) -> str:
    """How many runs are finished, running, waiting or missing, and which are running or failed.

    Args:
        waiting: the run's folder below OUTPUT -> a word on it, for runs that somebody will make or has failed to make.
    """
    words, running = {}, _running(planned)
    for p in planned:
        if p.cell.folder in running:
            words[p.name] = "running"
        else:
            words[p.name] = waiting.get(p.cell.folder) or ("finished" if p.state == "finished" else "not submitted")
    counts = {word: sum(w == word for w in words.values()) for word in dict.fromkeys(words.values())}
    lines = [f"{len(words)} runs: " + ", ".join(f"{count} {word}" for word, count in counts.items()) + "."]
    return "\n".join([*lines, *(f"  {word}: {name}" for name, word in words.items()
                                if word == "running" or word.startswith("failed"))])


def _running(planned: list) -> set[Path]:
    """Folders, below OUTPUT, of the runs that a live process writes in."""
    locked = [p for p in planned if (p.folder / LOCK).exists()]
    if not locked:
        return set()
    from dassl.utils.run_lock import owner_of

    return {p.cell.folder for p in locked if owner_of(p.folder)}
