"""A heat map of transfer: accuracy on each target when training starts from each source's prompts."""
from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from dassl.utils import UserError
from tools.tables import layouts
from tools.tables.found import scan

from .matrix import draw_matrix
from .style import Theme


def draw(folder: Path, theme: Theme, trainer: str = "", shots: int | None = None) -> Figure:
    """The first matrix among the results in `folder`, of that trainer and number of shots where they are given.

    Raises:
        UserError: there is none.
    """
    rows = [row for row in scan(folder) if trainer.lower() in ("", row.trainer.lower())
            and shots in (None, row.shots)]
    grids = layouts.build(rows, ("matrix",))
    if not grids:
        raise UserError(f"{folder} has no results of --protocol matrix for {trainer or 'any trainer'}"
                        f"{'' if shots is None else f' at {shots} shots'}. tools/sweep.py makes them.")
    grid = grids[0]
    lines = [line for line in grid.lines if line.kind == "measured"]
    columns = grid.head[1:-1] if grid.head[-1] == "average" else grid.head[1:]
    values = [[float("nan") if value.number is None else value.number for value in line.values[:len(columns)]]
              for line in lines]
    return draw_matrix(values, [line.labels[0] for line in lines], columns, grid.title, rows="started from",
                       columns="trained and tested on", theme=theme)
