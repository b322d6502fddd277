"""A table as lines of values, before it is text, Markdown or LaTeX; with the published values below each line."""
from __future__ import annotations

from dataclasses import dataclass, field

from .rows import Row, mean, minus


@dataclass
class Value:
    """What is in one place: a mean of seeds, or a published value or difference where there is no `row`.

    Attributes:
        number: percent, or points; None shows as a dash.
        row: whose mean it is; None for an average over datasets and for what was published.
        over: points above the block's first line; None where that is not shown.
    """

    number: float | None
    row: Row | None = None
    signed: bool = False
    over: float | None = None


@dataclass
class Line:
    """labels: as many as the table has columns of text. kind: "measured", "published", "difference" or "average"."""

    labels: list[str]
    values: list[Value]
    kind: str = "measured"
    rule: bool = False              # a line is drawn above
    block: str = ""                 # lines are compared with those of the same block


@dataclass
class Grid:
    """A table of a paper. head: names of all columns; rows: what went in; ranked: the best of a block stands out."""

    name: str
    title: str
    head: list[str]
    lines: list[Line] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    ranked: bool = False

    @property
    def labels(self) -> int:
        """How many columns are text."""
        return len(self.lines[0].labels)

    def add(self, labels: list[str], rows: list[Row | None], rule: bool = False, block: str = "") -> None:
        """A line of means, and below it what was published and the difference, where anything was."""
        values = [Value(row.mean if row else None, row) for row in rows]
        self._add(Line(labels, values, "measured", rule, block), [row.published if row else None for row in rows])
        self.rows += [row for row in rows if row]

    def add_numbers(self, labels: list[str], means: list, published: list, rule: bool = False) -> None:
        """As `add`, of averages over datasets."""
        self._add(Line(labels, [Value(number) for number in means], "average", rule, "average"), published)

    def _add(self, line: Line, published: list) -> None:
        self.lines.append(line)
        differences = [minus(value.number, other) for value, other in zip(line.values, published)]
        if any(value is not None for value in published):
            for kind, values in (("published", published), ("difference", differences)):
                names = [""] * (len(line.labels) - 1) + [kind]
                self.lines.append(Line(names, [Value(v, signed=kind == "difference") for v in values], kind,
                                       block=line.block))

    def add_average(self) -> None:
        """Below: the mean over the lines, in each column that every line has."""
        measured = [line for line in self.lines if line.kind == "measured"]
        if len(measured) > 1:
            columns = list(zip(*(line.values for line in measured)))
            self.add_numbers(["average"], [mean([v.number for v in column]) for column in columns],
                             [mean([v.row.published if v.row else None for v in column]) for column in columns], True)

    def add_column_of_averages(self, first: int, name: str = "average") -> None:
        """On the right: the mean over the columns from `first` (labels counted), in each line that has them all."""
        if len(self.head) - first < 2:
            return
        for line in self.lines:
            values = [v.number for v in line.values[first - 1:]]
            line.values.append(Value(mean(values), signed=line.kind == "difference"))
        self.head.append(name)

    def add_gains(self) -> None:
        """On the right: how far each line's last column is above the first line's."""
        first, base = self.lines[0], self.lines[0].values[-1].number
        for line in self.lines:
            gain = minus(line.values[-1].number, base)
            line.values.append(Value(gain if line.kind == "measured" and line is not first else None, signed=True))
        self.head.append(f"over {first.labels[0]}")

    def compare_lines(self) -> None:
        """In each block, how far every line is above the first one, and which ones stand out."""
        self.ranked, first = True, {}
        for line in self.lines:
            if line.kind in ("measured", "average") and (top := first.setdefault(line.block, line)) is not line:
                self.notes = ["(+1.2): points above the first line"]
                for value, base in zip(line.values, top.values):
                    value.over = minus(value.number, base.number)

    def ranks(self, digits: int) -> dict[int, int]:
        """id of a value -> 1 for the best of its column and block, 2 for the second; equal where they read equal."""
        places: dict[tuple, list[Value]] = {}
        for line in self.lines if self.ranked else ():
            if line.kind in ("measured", "average"):
                for column, value in enumerate(line.values):
                    if value.number is not None and not value.signed:
                        places.setdefault((line.block, column), []).append(value)
        found = {}
        for values in places.values():
            levels = sorted({round(value.number, digits) for value in values}, reverse=True)[:2]
            if len(values) > 1:
                found |= {id(v): 1 + levels.index(n) for v in values if (n := round(v.number, digits)) in levels}
        return found
