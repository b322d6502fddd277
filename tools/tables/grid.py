"""A table as lines of values, before it is text, Markdown or LaTeX; with the published values below each line."""
from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from .rows import Row, by, mean, minus


@dataclass
class Value:
    """What is in one place: a mean of seeds, or a published value or difference where there is no `row`.

    Attributes:
        number: percent, or points; None shows as a dash.
        row: whose mean it is; None for an average over datasets and for what was published.
        over: points above the block's first line; None where that is not shown.
        rank: 1 for the best of its column and block, 2 for the second, once `Grid.rank` has said it.
    """

    number: float | None
    row: Row | None = None
    signed: bool = False
    over: float | None = None
    rank: int = 0


@dataclass
class Line:
    """labels: as many as the table has columns of text. kind: "measured", "published", "difference" or "average"."""

    labels: list[str]
    values: list[Value]
    kind: str = "measured"
    rule: bool = False              # a line is drawn above
    block: str = ""                 # lines are compared with those of the same block

    @property
    def ranked(self) -> bool:
        return self.kind in ("measured", "average")


@dataclass
class Grid:
    """A table of a paper.

    Attributes:
        labels, columns: names of the columns of text and of those of numbers.
        rows: what went in. ranked: the best of a block stands out.
    """

    name: str
    title: str
    labels: list[str]
    columns: list[str]
    lines: list[Line] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    ranked: bool = False

    @property
    def head(self) -> list[str]:
        return [*self.labels, *self.columns]

    @property
    def measured(self) -> list[Line]:
        return [line for line in self.lines if line.kind == "measured"]

    @property
    def values(self) -> list[Value]:
        return [value for line in self.lines for value in line.values]

    def pivot(self, entries: Iterable[tuple[tuple[str, ...], str | None, Row | None]]) -> Grid:
        """A line of means for each tuple of labels, in their order.

        Args:
            entries: (labels of the line, column, row); without a column, a row is in all that have no other one. Where
                there are two labels, the first one is the block.
        """
        lines: dict[tuple[str, ...], dict] = {}
        for labels, column, row in entries:
            lines.setdefault(labels, {})[column] = row
        for labels, of in lines.items():
            rows = [of.get(column, of.get(None)) for column in self.columns]
            block = labels[0] if len(labels) > 1 else ""
            self._add(Line(list(labels), [Value(row.mean if row else None, row) for row in rows], block=block,
                           rule=bool(self.lines) and self.lines[-1].block != block),
                      [row.published if row else None for row in rows])
            self.rows += filter(None, rows)
        return self

    def _add(self, line: Line, published: list) -> None:
        """The line, and below it what was published and the difference, where anything was."""
        self.lines.append(line)
        differences = [minus(value.number, other) for value, other in zip(line.values, published)]
        if any(value is not None for value in published):
            for kind, values in (("published", published), ("difference", differences)):
                names = [""] * (len(line.labels) - 1) + [kind]
                self.lines.append(Line(names, [Value(v, signed=kind == "difference") for v in values], kind,
                                       block=line.block))

    def add_averages(self, name: str, of: int, last: Callable | None = None) -> None:
        """Below: the mean over the first label of what has a line for each of its `of` values, in the full columns.

        Args:
            last: makes the last column of the means of the others.
        """
        rule = True
        for labels, lines in by(self.measured, lambda line: tuple(line.labels[1:])).items():
            columns = list(zip(*(line.values for line in lines)))
            means = [mean([value.number for value in column]) for column in columns]
            published = [mean([value.row.published if value.row else None for value in column]) for column in columns]
            if last:
                means[-1], published[-1] = last(*means[:-1]), last(*published[:-1])
            if len(lines) == of > 1 and any(value is not None for value in means):
                self._add(Line([name, *labels], list(map(Value, means)), "average", rule, "average"), published)
                rule = False

    def add_column_of_averages(self, name: str = "average", skip: int = 0) -> None:
        """On the right: the mean over the columns but the first `skip`, in each line that has them all."""
        if len(self.columns) - skip < 2:
            return
        for line in self.lines:
            line.values.append(Value(mean([value.number for value in line.values[skip:]]),
                                     signed=line.kind == "difference"))
        self.columns.append(name)

    def add_gains(self) -> None:
        """On the right: how far each line's last column is above the first line's."""
        first, base = self.lines[0], self.lines[0].values[-1].number
        for line in self.lines:
            gain = minus(line.values[-1].number, base)
            line.values.append(Value(gain if line.kind == "measured" and line is not first else None, signed=True))
        self.columns.append(f"over {first.labels[0]}")

    def compare_lines(self) -> None:
        """In each block, how far every line is above the first one, and which ones stand out."""
        self.ranked, first = True, {}
        for line in filter(lambda line: line.ranked, self.lines):
            if (top := first.setdefault(line.block, line)) is not line:
                self.notes = ["(+1.2): points above the first line"]
                for value, base in zip(line.values, top.values):
                    value.over = minus(value.number, base.number)

    def rank(self, digits: int) -> None:
        """Say which values are the best and the second of their column and block; equal where they read equal."""
        lines = [line for line in self.lines if self.ranked and line.ranked]
        for own in by(lines, lambda line: line.block).values():
            for column in zip(*(line.values for line in own)):
                values = [value for value in column if value.number is not None and not value.signed]
                levels = sorted({round(value.number, digits) for value in values}, reverse=True)[:2]
                for value in values if len(values) > 1 else ():
                    number = round(value.number, digits)
                    value.rank = 1 + levels.index(number) if number in levels else 0
