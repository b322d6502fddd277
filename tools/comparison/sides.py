"""One side of a comparison: a run folder, or a folder that holds the seeds of one row."""
from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from dassl.errors import UserError
from tools.runs import record
from tools.runs.folder import CONFIG, RunFolder

_FILES = (record.FILE, CONFIG)


@dataclass
class Side:
    """name: A, B, ...; runs: seed -> run; several: whether a folder of seeds was named."""

    name: str
    folder: Path
    runs: dict[int, RunFolder] = field(default_factory=dict)
    several: bool = False


def sides_of(names: list[str]) -> list[Side]:
    """The sides, in the order they were named.

    Raises:
        UserError: a folder is missing, holds no run or holds runs of several rows.
    """
    return [_side(chr(ord("A") + i) if len(names) <= 26 else f"run {i + 1}", Path(n)) for i, n in enumerate(names)]


def _side(name: str, folder: Path) -> Side:
    if folder.is_file() and folder.name in _FILES:
        folder = folder.parent
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}. Name a run folder, which has a results.json, or one of seeds.")
    if any((folder / file).is_file() for file in _FILES):
        run = _run(folder)
        return Side(name, folder, {run.seed: run})
    side = Side(name, folder, several=True)
    for child in sorted(folder.iterdir()):
        if any((child / file).is_file() for file in _FILES):
            run = _run(child)
            if run.seed in side.runs:
                raise UserError(f"{folder} holds two runs of seed {run.seed}, {side.runs[run.seed].folder.name} and "
                            f"{child.name}. Name the runs to compare.")
            side.runs[run.seed] = run
    if not side.runs:
        inner = next((path.parents[1] for file in _FILES
                      for path in sorted(folder.rglob(f"*/{file}"))), None)
        raise UserError(f"{folder} is no run folder (it has no results.json and no config.yaml) and holds none."
                    + (f" {inner} does: name that one, or a run in it." if inner else ""))
    kinds = {(run.record.get("trainer"), run.record.get("dataset")) for run in side.runs.values() if run.record}
    if len(kinds) > 1:
        raise UserError(f"{folder} holds runs of {', '.join(sorted(' on '.join(map(str, k)) for k in kinds))}. Name "
                    "folders that hold the seeds of one row each.")
    return side


def _run(folder: Path) -> RunFolder:
    run = RunFolder(folder)
    if not run.record and (folder / record.FILE).exists():
        raise UserError(f"{folder / record.FILE} is damaged, or no run has written it. Run the command in log.txt "
                        "again, or name another run.")
    return run
