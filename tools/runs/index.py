"""All runs below some folders as one pandas DataFrame, for notebooks and for whatever is not a table of a paper.

Imports nothing heavy until it is called.
"""
from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from tools.runs import published
from tools.runs.folder import RunFolder, below
from tools.runs.recipe import Recipe

if TYPE_CHECKING:
    import pandas

_OF_CELL = ("dataset", "trainer", "config", "words", "shots", "seed", "classes", "source", "protocol", "recipe",
            "variant")
_OF_RECORD = ("mode", "split", "num_test", "num_classes", "epochs", "learned_parameters", "precision", "device",
              "commit", "date")
COLUMNS = (*_OF_CELL, "options", "beyond_yaml", "finished", "accuracy", "at_chance", "published", *_OF_RECORD,
           "backbone", "seconds", "seconds_train", "seconds_test", "folder")
_WHOLE = ("shots", "seed", "num_test", "num_classes", "epochs", "learned_parameters")


def index(*roots: str | Path, recipes: tuple[Recipe, ...] = ()) -> pandas.DataFrame:
    """One row a run, finished or begun, in order of their folders.

    Args:
        roots: folders of results, or run folders.
        recipes: asked for published values before those of configs/recipes.
    Returns:
        The columns of `COLUMNS`, then one for each further metric and one for each KEY of the user's options. accuracy,
        published: percent; seconds: of the whole run; options: what the user set otherwise, "KEY=value,...";
        beyond_yaml: what the recipe did; folder: a Path. What a run does not say is missing.
    Raises:
        FileNotFoundError: a folder is not there.
    """
    for root in roots:
        if not Path(root).is_dir():
            raise FileNotFoundError(f"There is no folder {root}. Name the folder that was given as OUTPUT, or any that "
                                    "holds run folders.")
    return frame_of(below(*roots), (*recipes, *published.shipped()))


def frame_of(runs: Iterable[RunFolder], recipes: tuple[Recipe, ...]) -> pandas.DataFrame:
    """As `index`, of some runs; `recipes`: all that are asked."""
    import pandas

    frame = pandas.DataFrame([row_of(run, recipes) for run in runs])
    more = sorted(set(frame.columns) - set(COLUMNS), key=lambda name: ("." in name, name))      # metrics, then options
    return frame.reindex(columns=[*COLUMNS, *more]).astype(dict.fromkeys(_WHOLE, "Int64"))


def row_of(run: RunFolder, recipes: tuple[Recipe, ...]) -> dict[str, object]:
    """The row of one run."""
    cell, record = published.settled(run, recipes), run.record
    options, beyond = ({key: str(value) for key, value in sorted(pairs.items())}
                       for pairs in (cell.options, published.beyond_yaml(cell)))
    seconds, (like, _) = record.get("seconds", {}), published.match([run], cell, recipes)
    return {**options, **{name: getattr(cell, name) for name in _OF_CELL}, "seed": run.seed, "options": _text(options),
            "beyond_yaml": _text(beyond), "finished": run.finished, "accuracy": run.accuracy,
            "at_chance": run.record.at_chance, "published": like.published if like and not cell.options else None,
            **{name: record.get(name) for name in _OF_RECORD}, "backbone": record.get("backbone", {}).get("name"),
            "seconds": seconds.get("total"), **{f"seconds_{part}": seconds.get(part) for part in ("train", "test")},
            "folder": run.folder, **{name: value for name, value in run.metrics.items() if name not in COLUMNS}}


def _text(options: dict[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in options.items())
