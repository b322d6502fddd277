"""All runs below some folders as one pandas DataFrame, for notebooks and for whatever is not a table of a paper.

Imports nothing heavy until it is called.
"""
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tools.runs import published
from tools.runs.folder import RunFolder, below
from tools.runs.recipe import Recipe

if TYPE_CHECKING:
    import pandas

_OF_CELL = ("dataset", "trainer", "config", "shots", "seed", "classes", "source", "protocol", "recipe", "variant")
_OF_RECORD = ("mode", "split", "num_test", "num_classes", "epochs", "learned_parameters", "precision", "device",
              "commit", "date")
COLUMNS = (*_OF_CELL, "options", "finished", "accuracy", "at_chance", "published", *_OF_RECORD, "backbone", "seconds",
           "folder")


def index(*roots: str | Path, recipes: tuple[Recipe, ...] = ()) -> pandas.DataFrame:
    """One row a run, finished or begun, in order of their folders.

    Args:
        roots: folders of results, or run folders.
        recipes: asked for published values before those of configs/recipes.
    Returns:
        The columns of `COLUMNS`, then one for each further metric. accuracy, published: percent; seconds: of the whole
        run; options: what the user set otherwise, "KEY=value,..."; folder: a Path. What a run does not say is missing.
    Raises:
        FileNotFoundError: a folder is not there.
    """
    import pandas

    for root in roots:
        if not Path(root).is_dir():
            raise FileNotFoundError(f"There is no folder {root}. Name the folder that was given as OUTPUT, or any that "
                                    "holds run folders.")
    known = (*recipes, *published.shipped())
    frame = pandas.DataFrame([row_of(run, known) for run in below(*roots)])
    more = sorted(set(frame.columns) - set(COLUMNS))
    frame = frame.reindex(columns=[*COLUMNS, *more])
    whole = ("shots", "seed", "num_test", "num_classes", "epochs", "learned_parameters")
    return frame.astype(dict.fromkeys(whole, "Int64"))


def row_of(run: RunFolder, recipes: tuple[Recipe, ...]) -> dict[str, object]:
    """The row of one run."""
    cell, record = published.settled(run, recipes), run.record
    options = ",".join(f"{key}={value}" for key, value in sorted(cell.user_opts.items()))
    return {**{name: getattr(cell, name) for name in _OF_CELL}, "seed": run.seed, "options": options,
            "finished": run.finished, "accuracy": run.accuracy, "at_chance": run.record.at_chance,
            "published": published.value(run, cell, recipes), **{name: record.get(name) for name in _OF_RECORD},
            "backbone": record.get("backbone", {}).get("name"), "seconds": record.get("seconds", {}).get("total"),
            "folder": run.folder, **{name: value for name, value in run.metrics.items() if name not in COLUMNS}}
