"""A heat map of transfer: accuracy on each target when training starts from each source's prompts."""
from __future__ import annotations

from matplotlib.figure import Figure

from dassl.utils import UserError
from tools.tables import layouts
from tools.tables.rows import Row

from .matrix import draw_matrix
from .style import Theme


def draw(rows: list[Row], theme: Theme) -> Figure:
    """The matrix of one method at one number of shots.

    Raises:
        UserError: there is none among the rows, or several.
    """
    grids = layouts.build(rows, ("matrix",))
    if len(grids) != 1:
        listed = "; ".join(grid.title for grid in grids) or "none"
        raise UserError(f"transfer shows one matrix of tools/sweep.py --protocol matrix, and there are {len(grids)}: "
                        f"{listed}. Choose one with --trainers, --configs and --shots.")
    grid = grids[0]
    lines, columns = grid.measured, [name for name in grid.columns if name != "average"]
    values = [[float("nan") if value.number is None else value.number for value in line.values[:len(columns)]]
              for line in lines]
    return draw_matrix(values, [line.labels[0] for line in lines], columns, grid.title, rows="started from",
                       columns="trained and tested on", theme=theme)
