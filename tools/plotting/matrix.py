"""A heat map with its numbers: accuracies A[i, t] after each task, transfer from one domain to another, confusions."""
from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from dassl.utils import UserError

from .style import THEMES, Theme, context, drawable, sheet

CELL, SIDE = 0.42, (2.6, 9.0)           # of a cell; of a matrix, unless its many names need more: inches


def draw_matrix(values, row_labels: Sequence[str], column_labels: Sequence[str], title: str | None = None,
                unit: str = "%", rows: str = "", columns: str = "", digits: int = 1, limits: tuple | None = None,
                theme: Theme = THEMES["light"]) -> Figure:
    """A matrix as colours with the numbers in its cells; NaN leaves a cell empty.

    Args:
        values: (R, C) numbers in `unit`. Where some are negative, the colours diverge from zero.
        row_labels, column_labels: R and C names. rows, columns: what they are, along the axes.
        title: above the matrix; a figure for a paper has none. digits: decimals of the numbers.
        limits: (lowest, highest) value of the colour scale; None takes 0 to 100 for percentages, else the values' own.
    Raises:
        UserError: the labels do not fit the values, or there is no value.
    """
    values = np.asarray(values, dtype=float)
    if values.ndim != 2 or values.shape != (len(row_labels), len(column_labels)):
        raise UserError(f"A matrix needs a label for each row and column: its shape is {values.shape}, got "
                        f"{len(row_labels)} row and {len(column_labels)} column labels.")
    if not np.isfinite(values).any():
        raise UserError("A matrix needs at least one value, all of its cells are empty.")
    R, C = values.shape
    texts = np.where(np.isnan(values), "", [[f"{value:.{digits}f}".replace("-", "−") for value in row]
                                            for row in values])
    letters = max(len(text) for text in texts.flat)
    with context(theme):
        needed = 1.25 * theme.small / 72                                         # of a line of letters, inches
        wide, high = (max(min(max(count * max(CELL, 0.09 * letters), SIDE[0]), SIDE[1]), 1.02 * count * needed)
                      for count in (C, R))
        longest = max(len(str(name)) for name in row_labels) * theme.small * 0.6 / 72
        width = theme.wide(wide + longest + 0.9)
        cell = (width - longest - 0.9) / C                                       # its width, inches
        height = R * min(cell, CELL) if theme.paper else high
        figure = sheet(theme, width, height + 0.4 + (max(len(str(name)) for name in column_labels) * theme.small * 0.6
                                                     / 72 if C > 1 else 0.2))
        ax = figure.subplots()
        norm, cmap = _scale(values, unit, limits, theme)
        image = ax.imshow(np.ma.masked_invalid(values), cmap=cmap, norm=norm, aspect="auto", gid="matrix")
        flat = all(len(str(name)) * theme.small * 0.62 / 72 < cell for name in column_labels)
        _ticks(ax.set_xticks, column_labels, flat or cell >= needed, rotation=0 if flat else 90)
        _ticks(ax.set_yticks, row_labels, height / R >= needed)
        ax.set(xlabel=columns or None, ylabel=rows or None)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        lines = {"color": theme.page, "linewidth": 1.2 if max(R, C) <= 30 else 0.4}
        ax.hlines(np.arange(R - 1) + 0.5, -0.5, C - 0.5, **lines)
        ax.vlines(np.arange(C - 1) + 0.5, -0.5, R - 0.5, **lines)
        if letters * theme.small * 0.62 / 72 < cell and height / R >= needed:
            for (r, c), text in np.ndenumerate(texts):
                if text:
                    ax.text(c, r, text, size=theme.small, ha="center", va="center")
        bar = figure.colorbar(image, ax=ax, shrink=0.8, aspect=25, pad=0.02)
        bar.outline.set_visible(False)
        bar.ax.tick_params(length=0)
        bar.set_label(unit)
        if title and not theme.paper:
            letters = int(72 * width / (0.62 * 11))                             # of a bold line of this size
            figure.suptitle(textwrap.fill(drawable(title), letters), size=11, weight="bold", x=0.01, ha="left")
    return figure


def _ticks(put, names: Sequence[str], fit: bool, **look) -> None:
    """A name for each place, or none where they would be drawn over each other."""
    put(range(len(names)), [drawable(str(name)) for name in names] if fit else [""] * len(names), **look)


def _scale(values, unit: str, limits: tuple | None, theme: Theme):
    """Norm and colours: one hue from the lowest to the highest value, two where values have both signs."""
    low, high = limits or (float(np.nanmin(values)), float(np.nanmax(values)))
    if low < 0:
        most = max(-low, high)
        return Normalize(-most, most), theme.heat(theme.hues[1], theme.hues[0])  # orange is a loss, blue a gain
    if limits is None:
        low, high = 0.0, 100.0 if unit == "%" and high <= 100 else high or 1.0
    return Normalize(low, high), theme.heat()
