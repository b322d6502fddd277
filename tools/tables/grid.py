"""A table as lines of values, before it is text, Markdown or LaTeX; with the published values below each line."""
from __future__ import annotations

import statistics
from dataclasses import dataclass, field

from .rows import Row


@dataclass
class Value:
    """What stands in one place: a mean of seeds, or a published value or difference where there is no `row`.

    Attributes:
        number: percent, or points; None shows as a dash.
        row: whose mean it is; None for an average over datasets and for what was published.
    """

    number: float | None
    row: Row | None = None
    signed: bool = False


@dataclass
class Line:
    """labels: as many as the table has columns of text. kind: "measured", "published", "difference" or "average"."""

    labels: list[str]
    values: list[Value]
    kind: str = "measured"
    rule: bool = False              # a line is drawn above


@dataclass
class Grid:
    """A table of a paper. head: names of all columns; rows: what went in."""

    name: str
    title: str
    head: list[str]
    lines: list[Line] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def add(grid: Grid, labels: list[str], rows: list[Row | None], rule: bool = False) -> None:
    """A line of means, and below it what was published and the difference, where anything was."""
    grid.lines.append(Line(labels, [Value(row.mean if row else None, row) for row in rows], rule=rule))
    grid.rows += [row for row in rows if row]
    published = [row.published if row else None for row in rows]
    _add_published(grid, len(labels), published, [row.difference if row else None for row in rows])


def add_numbers(grid: Grid, labels: list[str], means: list, published: list, rule: bool) -> None:
    grid.lines.append(Line(labels, [Value(number) for number in means], "average", rule))
    _add_published(grid, len(labels), published, [_minus(*pair) for pair in zip(means, published)])


def _add_published(grid: Grid, labels: int, published: list, differences: list) -> None:
    if any(value is not None for value in published):
        for kind, values in (("published", published), ("difference", differences)):
            names = [""] * (labels - 1) + [kind]
            grid.lines.append(Line(names, [Value(v, signed=kind == "difference") for v in values], kind))


def add_average(grid: Grid) -> None:
    """Below: the mean over the lines, in each column that every line has."""
    measured = [line for line in grid.lines if line.kind == "measured"]
    if len(measured) < 2:
        return
    columns = list(zip(*(line.values for line in measured)))
    means = [mean([v.number for v in column]) for column in columns]
    published = [mean([v.row.published if v.row else None for v in column]) for column in columns]
    add_numbers(grid, ["average"], means, published, True)


def add_column_of_averages(grid: Grid, first: int, name: str = "average") -> None:
    """On the right: the mean over the columns from `first` (labels counted), in each line that has them all."""
    if len(grid.head) - first < 2:
        return
    for line in grid.lines:
        values = [v.number for v in line.values[first - 1:]]
        line.values.append(Value(mean(values), signed=line.kind == "difference"))
    grid.head.append(name)


def add_gains(grid: Grid) -> None:
    """On the right: how far each line's last column is above the first line's."""
    first, base = grid.lines[0], grid.lines[0].values[-1].number
    for line in grid.lines:
        gain = _minus(line.values[-1].number, base) if line.kind == "measured" and line is not first else None
        line.values.append(Value(gain, signed=True))
    grid.head.append(f"over {first.labels[0]}")


def _minus(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def mean(values: list[float | None]) -> float | None:
    return statistics.fmean(values) if values and None not in values else None
