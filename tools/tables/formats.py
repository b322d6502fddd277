"""Grids as plain text, Markdown, HTML and LaTeX, with notes on what the numbers are."""
from __future__ import annotations

import html as markup
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tabulate import tabulate

from .grid import Grid, Value
from .rows import Row, by

LEGEND = "accuracy on the test split, percent: mean ± population standard deviation over seeds"
SEEDS = "; (2/3): seeds found of those that were asked for"
FLAG = "!"
MOST_PLACES = 3                 # that a note names for a value; of more it says "elsewhere"
_LONG = 40                      # lines from which a LaTeX table is also kept to the height of the page
_ESCAPES = str.maketrans({
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "_": r"\_", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "±": r"$\pm$",
    "|": r"\textbar{}", '"': "''"})
PREAMBLE = r"""\documentclass{article}
\usepackage[utf8]{inputenc}
\usepackage{booktabs}
\usepackage{graphicx}
\usepackage[margin=2cm]{geometry}
\begin{document}"""
_NARROWER = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"     # never wider, never enlarged
_LOWER = r"\resizebox*{!}{\ifdim\totalheight>0.85\textheight 0.85\textheight\else\totalheight\fi}{%"
_PAGE = """<!DOCTYPE html>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Results</title>
<style>body{font:16px sans-serif;margin:1em}table{border-collapse:collapse}\
caption{text-align:left;font-weight:bold;padding:.5em 0}th{text-align:left}\
td,th{padding:.2em .7em;white-space:nowrap}thead{border-top:2px solid;border-bottom:1px solid}\
tbody{border-bottom:2px solid}div{overflow-x:auto;margin-bottom:1.5em}</style>"""


def _latex(text: str) -> str:
    return text.translate(_ESCAPES)


def _markdown(text: str) -> str:
    return re.sub(r"([\\|`*_<>\[\]])", r"\\\1", text)


@dataclass(frozen=True)
class Format:
    """How names and numbers are written.

    Attributes:
        best, second: around these numbers. math: numbers are formulas. once: a label is not repeated below itself.
    """

    escape: Callable[[str], str]
    best: str
    second: str
    math: bool = False
    once: bool = False

    def cell(self, value: Value, digits: int) -> str:
        """"93.1 ± 0.4 (2/3) ! (+1.2)", as far as there is something of each."""
        row, dollar, sign = value.row, "$" if self.math else "", r" \pm " if self.math else " ± "
        found = f"({len(row.found)}/{len(row.seeds)})" if row and row.missing else ""
        if value.number is None:
            return f"{'--' if self.math else '-'} {found}".rstrip()
        number = ("{}", self.best, self.second)[value.rank].format(rounded(value.number, digits, value.signed))
        spread = f"{sign}{row.spread:.{digits}f}" if row and row.spread is not None else ""
        over = "" if value.over is None else f"({dollar}{rounded(value.over, digits, signed=True)}{dollar})"
        flag = FLAG if row and row.collapsed else ""
        return " ".join(filter(None, [f"{dollar}{number}{spread}{dollar}", found, flag, over]))

    def lines(self, grid: Grid, digits: int) -> list[list[str]]:
        """The texts of each line."""
        grid.rank(digits)
        found, former = [], ""
        for line in grid.lines:
            below = self.math and not line.ranked
            labels = [rf"\quad {label}" if below and label else self.escape(label) for label in line.labels]
            if self.once and former and not line.rule and labels[0] == former and len(labels) > 1:
                labels[0] = ""
            former = labels[0] or former
            found.append([*labels, *(self.cell(value, digits) for value in line.values)])
        return found

    def table(self, grid: Grid, digits: int, style: str) -> str:
        """By tabulate, in one of its styles."""
        return tabulate(self.lines(grid, digits), list(map(self.escape, grid.head)), tablefmt=style,
                        disable_numparse=True, colalign=_align(grid))


TEXT = Format(str, "*{}*", "_{}_")
MARKDOWN = Format(_markdown, "**{}**", "<u>{}</u>")
HTML = Format(markup.escape, "<b>{}</b>", "<u>{}</u>", once=True)
LATEX = Format(_latex, r"\mathbf{{{}}}", r"\underline{{{}}}", math=True, once=True)


def text(grids: list[Grid], rows: list[Row], digits: int) -> str:
    parts = [f"{grid.title}\n\n{TEXT.table(grid, digits, 'simple')}\n" for grid in grids]
    return "\n".join([*parts, *notes(grids, rows, digits, "*best*, _second_")])


def markdown(grids: list[Grid], rows: list[Row], digits: int) -> str:
    parts = [f"### {_markdown(grid.title)}\n\n{MARKDOWN.table(grid, digits, 'pipe')}\n" for grid in grids]
    below = notes(grids, rows, digits)
    return "\n".join([*parts, *(f"- {_markdown(note)}" for note in below), *_best(grids, "- **best**, <u>second</u>")])


def html(grids: list[Grid], rows: list[Row], digits: int) -> str:
    """A page without any script or other file."""
    parts = [_PAGE]
    for grid in grids:
        caption = f"<table>\n<caption>{markup.escape(grid.title)}</caption>"
        parts.append(f"<div>{HTML.table(grid, digits, 'unsafehtml').replace('<table>', caption, 1)}</div>")
    below = [*map(markup.escape, notes(grids, rows, digits)), *_best(grids, "<b>best</b>, <u>second</u>")]
    return "\n".join([*parts, "<ul>", *(f"<li>{note}</li>" for note in below), "</ul>"])


def latex(grids: list[Grid], rows: list[Row], digits: int, standalone: bool = False) -> str:
    """A table environment per grid, notes as comments above; `standalone` makes it a document of its own."""
    parts = [PREAMBLE if standalone else r"% needs \usepackage{booktabs} and \usepackage{graphicx}"]
    parts += [f"% {note}" for note in notes(grids, rows, digits)]
    used: list[str] = []
    for grid in grids:
        used.append(re.sub(r"\W+", "-", grid.title.lower()).strip("-"))
        label = used[-1] + (f"-{used.count(used[-1])}" if used.count(used[-1]) > 1 else "")
        scales = [_NARROWER, *[_LOWER] * (len(grid.lines) > _LONG)]
        parts += ["", r"\begin{table}[t]", r"\centering", rf"\caption{{{_caption(grid)}}}",
                  rf"\label{{tab:{label}}}", *scales,
                  rf"\begin{{tabular}}{{{''.join(side[0] for side in _align(grid))}}}", r"\toprule",
                  _row(map(_latex, grid.head)), r"\midrule"]
        for line, cells in zip(grid.lines, LATEX.lines(grid, digits)):
            parts += [r"\midrule"] * line.rule + [_row(cells)]
        parts += [r"\bottomrule", r"\end{tabular}" + "}" * len(scales), r"\end{table}"]
    return "\n".join([*parts, *([r"\end{document}"] if standalone else [])])


def notes(grids: list[Grid], rows: list[Row], digits: int, best: str = "") -> list[str]:
    """What the numbers are, what is missing, what looks wrong, and where published values were read."""
    for grid in grids:
        grid.rank(digits)
    shown = [row for grid in grids for row in grid.rows] if grids else rows
    shown = list({id(row): row for row in [*shown, *(part for row in shown for part in row.parts)]}.values())
    own = [row for row in shown if not row.parts]
    found = [LEGEND + SEEDS * any(row.missing for row in shown), *_best(grids, best)]
    found += dict.fromkeys(note for grid in grids for note in grid.notes)
    found += [f"missing: {row.label}, seed{'s' * (len(row.missing) > 1)} {', '.join(map(str, row.missing))}"
              for row in own if row.missing]
    found += collapsed(own, digits)
    found += [f"no published value for {row.label}: its recipe has not "
              f"{', '.join(f'{key} {value}' for key, value in row.changed.items())}" for row in own if row.changed]
    sources = dict.fromkeys((row.trainer, row.published_from) for row in own
                            if row.published is not None and row.published_from)
    return found + settings(own) + [f"published ({trainer}): {source}" for trainer, source in sources]


def collapsed(rows: list[Row], digits: int) -> list[str]:
    """A line for each seed that is taken for collapsed."""
    return [f"{FLAG} {row.label}, seed {seed}: {row.seeds[seed]:.{digits}f} is {reason}; it is part of the mean"
            for row in rows if not row.parts for seed, reason in row.collapsed.items()]


def _best(grids: list[Grid], words: str) -> list[str]:
    return [words] * bool(words and any(value.rank for grid in grids for value in grid.values))


def settings(rows: list[Row]) -> list[str]:
    """What recipes set and trainer yamls do not, a line for methods of the same; of several values, where each is."""
    methods = by([row for row in rows if not row.parts], lambda row: (row.trainer, row.cell.config))
    found: dict[str, list[str]] = {}
    for (trainer, base), own in methods.items():
        words = []
        for key in dict.fromkeys(key for row in own for key in row.beyond):
            values = by(own, lambda row, key=key: row.beyond.get(key, row.options.get(key, "as in the yaml")))
            places = {value: _places(some, own) for value, some in values.items()} if len(values) > 1 else {}
            longest = max(places.values(), key=len, default="")
            if longest.count(", ") >= MOST_PLACES:
                places = {value: "elsewhere" if place == longest else place for value, place in places.items()}
            words.append(f"{key} " + ", ".join((value or '""') + (f" ({places[value]})" if places else "")
                                               for value in values))
        if words:
            found.setdefault("; ".join(words), []).append(f"{trainer} ({base})")
    return [f"{', '.join(names)}, set by the recipe{'s' * (len(names) > 1)} but not by the "
            f"yaml{'s' * (len(names) > 1)}: {words}" for words, names in found.items()]


def _places(some: list[Row], all_rows: list[Row]) -> str:
    """What sets rows apart from the others of their method: shots, else datasets, else both."""
    of = {"shots": _shots, "dataset": lambda row: row.dataset,
          "both": lambda row: f"{row.dataset} {row.classes or row.tag} {_shots(row)}".replace("  ", " ")}
    others = [row for row in all_rows if row not in some]
    for name in of.values():
        if not {name(row) for row in some} & {name(row) for row in others}:
            break
    return ", ".join(dict.fromkeys(map(name, some)))


def _shots(row: Row) -> str:
    return "no shots" if row.shots is None else f"{row.shots} shot{'s' * (row.shots != 1)}"


def rounded(number: float, digits: int, signed: bool = False) -> str:
    """"93.1", or "+0.4"; never -0.0."""
    return f"{round(number, digits) + 0.0:{'+' if signed else ''}.{digits}f}"


def _caption(grid: Grid) -> str:
    words = [rf"{_latex(grid.title)}: mean $\pm$ standard deviation over seeds, \%."]
    words += [r"Best in bold, second underlined."] * any(value.rank for value in grid.values)
    words += ["In parentheses: points above the first line."] * any(value.over is not None for value in grid.values)
    words += ["(2/3): seeds found of those asked for."] * any(row.missing for row in grid.rows)
    words += [f"{FLAG}: with a seed that has collapsed."] * any(row.collapsed for row in grid.rows)
    return " ".join(words)


def _align(grid: Grid) -> list[str]:
    return ["left"] * len(grid.labels) + ["right"] * len(grid.columns)


def _row(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"
