"""A heat map with its numbers: accuracies A[i, t] after each task, transfer from one domain to another, confusions."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from dassl.utils import UserError

from .style import BODY, HEADING, SMALL, THEMES, Theme, context, drawable, readable_on, widest

CELL, SMALLEST, NUMBERS = 0.46, 0.14, 0.26      # side of a cell, of one among many, of one that has its number: inches
SIDE = 6.0                                      # a matrix of many cells is squeezed into this: inches
AROUND, BAR = 0.15, 0.55                        # margin of the page; colour bar with its gap: inches


def draw_matrix(values, row_labels: Sequence[str], column_labels: Sequence[str], title: str | None = None,
                unit: str = "%", rows: str = "", columns: str = "", digits: int = 1, limits: tuple | None = None,
                theme: Theme = THEMES["light"], cell: float | None = None, size: float = SMALL) -> Figure:
    """A matrix as colours with the numbers in its cells; NaN leaves a cell empty.

    Args:
        values: (R, C) numbers in `unit`. Where some are negative, the colours diverge from zero.
        row_labels, column_labels: R and C names. rows, columns: what they are, beside the axes.
        title: above the matrix; None for none. digits: decimals of the numbers.
        limits: (lowest, highest) value of the colour scale; None takes 0 to 100 for percentages, else the values' own.
        cell: side of a cell, inches; None chooses. size: of the letters, points.
    Raises:
        UserError: the labels do not fit the values, or there is no value.
    """
    values = np.asarray(values, dtype=float)
    if values.ndim != 2 or values.shape != (len(row_labels), len(column_labels)):
        raise UserError(f"A matrix needs a label for each row and column: its shape is {values.shape}, got "
                        f"{len(row_labels)} row and {len(column_labels)} column labels.")
    if not np.isfinite(values).any():
        raise UserError("A matrix needs at least one value, all of its cells are empty.")
    row_labels, column_labels = ([drawable(str(label)) for label in labels] for labels in (row_labels, column_labels))
    R, C = values.shape
    cell = cell or min(CELL, max(SMALLEST, SIDE / max(R, C)))
    texts = [["" if np.isnan(value) else f"{value:.{digits}f}".replace("-", "−") for value in row] for row in values]
    numbered = cell >= NUMBERS
    if numbered:                                # a cell is as wide as its number
        cell_width = max(cell, widest([text for row in texts for text in row], size) + 0.1)
    else:
        cell_width = cell
    slanted = widest(column_labels, size) > cell_width
    with context(theme):
        left = AROUND + widest(row_labels, size) + 0.08 + (0.25 if rows else 0)
        above = AROUND + (0.4 if title else 0.2 if unit else 0)
        below = AROUND + (widest(column_labels, size) if slanted else 0.15) + 0.08 + (0.25 if columns else 0)
        width, height = left + C * cell_width + BAR + AROUND + 0.35, above + R * cell + below
        figure = Figure(figsize=(width, height))
        FigureCanvasAgg(figure)
        ax = figure.add_axes((left / width, below / height, C * cell_width / width, R * cell / height))
        norm, cmap = _scale(values, unit, limits, theme)
        image = ax.imshow(np.ma.masked_invalid(values), cmap=cmap, norm=norm, aspect="auto", interpolation="nearest",
                          gid="matrix")
        ax.set_xticks(range(C), column_labels, rotation=90 if slanted else 0, size=size)
        ax.set_yticks(range(R), row_labels, size=size)
        ax.set(xlabel=columns or None, ylabel=rows or None)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        ax.hlines(np.arange(R - 1) + 0.5, -0.5, C - 0.5, color=theme.page, linewidth=1.2 if R <= 30 else 0.4)
        ax.vlines(np.arange(C - 1) + 0.5, -0.5, R - 0.5, color=theme.page, linewidth=1.2 if C <= 30 else 0.4)
        ax.set(xlim=(-0.5, C - 0.5), ylim=(R - 0.5, -0.5))
        if numbered:
            for (r, c), value in np.ndenumerate(values):
                if not np.isnan(value):
                    ax.text(c, r, texts[r][c], size=size, ha="center", va="center",
                            color=readable_on(cmap(norm(value))))
        tall = min(R * cell, 2.4)
        bar = figure.add_axes(((left + C * cell_width + 0.15) / width, (below + R * cell - tall) / height, 0.1 / width,
                               tall / height))
        figure.colorbar(image, cax=bar).outline.set_visible(False)
        bar.tick_params(labelsize=size, length=0)
        if unit:
            bar.set_title(unit, size=size, loc="center", weight="normal", color=theme.muted)
        if title:
            figure.text(AROUND / width, 1 - AROUND / height, drawable(title), size=HEADING, weight="bold", va="top")
    return figure


def _scale(values, unit: str, limits: tuple | None, theme: Theme):
    """Norm and colours: one hue from the lowest to the highest value, two where values have both signs."""
    low, high = limits or (float(np.nanmin(values)), float(np.nanmax(values)))
    if low < 0:
        most = max(-low, high)
        return Normalize(-most, most), theme.diverging.reversed()         # orange is a loss, blue a gain
    if limits is None:
        low, high = 0.0, 100.0 if unit == "%" and high <= 100 else high or 1.0
    return Normalize(low, high), theme.ramp(theme.hues[0])
