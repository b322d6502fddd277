"""Grids as plain text, Markdown and LaTeX; rows as CSV and JSON, unrounded."""
from __future__ import annotations

import csv
import io
import json
import re

from tabulate import tabulate

from .grid import Grid, Line, Value
from .layouts import protocol_of
from .rows import Row, with_summaries

LEGEND = ("accuracy on the test split, percent: mean ± population standard deviation over seeds; (2/3): seeds found "
          "of those that should be there")
FLAG = "!"
_WIDE, _LONG = 69, 40           # letters across and lines from which a LaTeX table is scaled to the page
_ESCAPES = {"\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "_": r"\_", "&": r"\&", "%": r"\%", "$": r"\$",
            "#": r"\#", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
            ">": r"\textgreater{}", "±": r"$\pm$", "|": r"\textbar{}", '"': "''"}
PREAMBLE = "\\documentclass{article}\n\\usepackage[utf8]{inputenc}\n" \
           "\\usepackage{booktabs}\n\\usepackage{graphicx}\n\\usepackage[margin=2cm]{geometry}\n\\begin{document}\n"


def text(grids: list[Grid], rows: list[Row], digits: int) -> str:
    parts = []
    for grid in grids:
        lines = [[*line.labels, *(_plain(v, digits) for v in line.values)] for line in grid.lines]
        parts += [grid.title, "", tabulate(lines, grid.head, disable_numparse=True, colalign=_align(grid)), ""]
    return "\n".join([*parts, *notes(grids, rows, digits)])


def markdown(grids: list[Grid], rows: list[Row], digits: int) -> str:
    parts = []
    for grid in grids:
        lines = [[*map(_markdown, line.labels), *(_markdown(_plain(v, digits)) for v in line.values)]
                 for line in grid.lines]
        head = list(map(_markdown, grid.head))
        parts += [f"### {_markdown(grid.title)}", "",
                  tabulate(lines, head, tablefmt="pipe", disable_numparse=True, colalign=_align(grid)), ""]
    return "\n".join([*parts, *(f"- {_markdown(note)}" for note in notes(grids, rows, digits))])


def latex(grids: list[Grid], rows: list[Row], digits: int, standalone: bool = False) -> str:
    """A table environment per grid, notes as comments above; `standalone` makes it a document of its own."""
    needs = "% needs \\usepackage{booktabs}" + " and \\usepackage{graphicx}" * any(map(_scale, grids))
    parts = [PREAMBLE.rstrip()] if standalone else [needs]
    parts += [f"% {note}" for note in notes(grids, rows, digits)]
    for grid in grids:
        columns = _align(grid)
        tabular = [rf"\begin{{tabular}}{{{''.join(side[0] for side in columns)}}}", r"\toprule",
                   _line(map(_latex, grid.head)), r"\midrule"]
        for line in grid.lines:
            tabular += [r"\midrule"] * line.rule
            tabular.append(_line([*(_label(line, i) for i in range(len(line.labels))),
                                  *(_math(v, digits) for v in line.values)]))
        tabular += [r"\bottomrule", r"\end{tabular}"]
        if scale := _scale(grid):
            tabular = [rf"\resizebox*{scale}{{%", *tabular[:-1], tabular[-1] + "}"]
        parts += ["", r"\begin{table}[t]", r"\centering", rf"\caption{{{_caption(grid)}}}", *tabular,
                  r"\end{table}"]
    return "\n".join([*parts, *([r"\end{document}"] if standalone else [])])


def records(rows: list[Row]) -> list[dict]:
    """A flat record per row, H and averages over targets among them; numbers as they were measured."""
    found = []
    for row in with_summaries(rows):
        found.append({
            "protocol": protocol_of(row), "dataset": row.dataset, "trainer": row.trainer, "config": row.config,
            "base_config": row.base, "options": dict(row.options), "variant": row.variant, "where": row.where,
            "shots": row.shots, "classes": row.classes or "all", "trained_on": row.source or None,
            "mean": row.mean, "std": row.spread, "n": len(row.found), "n_wanted": len(row.seeds),
            "seeds": {str(s): row.seeds[s] for s in sorted(row.seeds)}, "missing_seeds": row.missing,
            "collapsed_seeds": {str(s): why for s, why in row.collapsed.items()}, "published": row.published,
            "difference": row.difference, "published_from": row.published_from if row.published is not None else "",
            "seconds": row.mean_seconds, "learned_parameters": row.learned,
            "folder": str(row.folder) if row.folder else None})
    return found


def as_json(grids: list[Grid], rows: list[Row]) -> str:
    """{"rows": as `records`, "tables": the same numbers as lines and columns}."""
    tables = [{"name": grid.name, "title": grid.title, "columns": grid.head, "lines": [
        {"labels": line.labels, "kind": line.kind,
         "values": [value.number for value in line.values]} for line in grid.lines]} for grid in grids]
    return json.dumps({"unit": "percent", "std": "population", "rows": records(rows), "tables": tables}, indent=2,
                      ensure_ascii=False)


def as_csv(rows: list[Row]) -> str:
    """One line per row; of several values in one field, pairs are written 1=93.1 and parted by spaces."""
    table = records(rows)
    out = io.StringIO()
    writer = csv.DictWriter(out, list(table[0]), lineterminator="\n")
    writer.writeheader()
    for record in table:
        writer.writerow({key: _flat(value) for key, value in record.items()})
    return out.getvalue().rstrip("\n")


def notes(grids: list[Grid], rows: list[Row], digits: int) -> list[str]:
    """What the numbers are, what is missing, what looks wrong, and where published values were read."""
    shown = list({id(row): row for grid in grids for row in grid.rows}.values()) if grids else rows
    shown += [part for row in shown for part in row.parts or () if part not in shown]
    found = [LEGEND, *dict.fromkeys(note for grid in grids for note in grid.notes)]
    found += [f"missing: {row.label}, seed{'s' * (len(row.missing) > 1)} {', '.join(map(str, row.missing))}"
              for row in shown if row.missing and not row.parts]
    found += [f"{FLAG} {row.label}, seed {seed}: {row.seeds[seed]:.{digits}f} is {reason}; it is part of the mean"
              for row in shown if not row.parts for seed, reason in row.collapsed.items()]
    found += [f"no published value beside {row.label}: its recipe has not "
              f"{', '.join(f'{key} {value}' for key, value in row.changed.items())}" for row in shown if row.changed]
    sources = dict.fromkeys((row.trainer, row.published_from) for row in shown
                            if row.published is not None and row.published_from and not row.parts)
    return found + [f"published ({trainer}): {source}" for trainer, source in sources]


def _scale(grid: Grid) -> str:
    """Width and height for resizebox, "" for a table that fits: a column is as wide as its longest text and a gap."""
    if len(grid.lines) > _LONG:
        return r"{!}{0.9\textheight}"
    columns = zip(grid.head, *([*line.labels, *(_plain(v, 1) for v in line.values)] for line in grid.lines))
    return r"{\linewidth}{!}" if sum(max(map(len, column)) + 2.4 for column in columns) > _WIDE else ""


def _caption(grid: Grid) -> str:
    values = [value for line in grid.lines for value in line.values]
    words = [rf"{_latex(grid.title)}: mean $\pm$ standard deviation over seeds, \%."]
    if any(value.row and value.row.missing for value in values):
        words.append("(2/3): seeds found of those that should be there.")
    if any(value.row and value.row.collapsed for value in values):
        words.append(f"{FLAG}: with a seed that has collapsed.")
    return " ".join(words)


def _plain(value: Value, digits: int) -> str:
    if value.number is None:
        return f"- (0/{len(value.row.seeds)})" if value.row and value.row.seeds else "-"
    number = rounded(value.number, digits, value.signed)
    return " ".join([number, *([f"± {value.row.spread:.{digits}f}"] if value.row and value.row.spread is not None
                               else []), *_marks(value)])


def rounded(number: float, digits: int, signed: bool = False) -> str:
    """"93.1", or "+0.4"; never -0.0."""
    return f"{round(number, digits) + 0.0:{'+' if signed else ''}.{digits}f}"


def _math(value: Value, digits: int) -> str:
    if value.number is None:
        return "--" + "".join(f" {mark}" for mark in _marks(value))
    number = rounded(value.number, digits, value.signed)
    if value.row and value.row.spread is not None:
        number += rf" \pm {value.row.spread:.{digits}f}"
    return " ".join([f"${number}$", *_marks(value)])


def _marks(value: Value) -> list[str]:
    """"(2/3)" where seeds are missing, "!" where one has collapsed."""
    row = value.row
    if row is None:
        return []
    return [f"({len(row.found)}/{len(row.seeds)})"] * bool(row.missing) + [FLAG] * bool(row.collapsed)


def _align(grid: Grid) -> list[str]:
    left = len(grid.lines[0].labels)
    return ["left"] * left + ["right"] * (len(grid.head) - left)


def _label(line: Line, i: int) -> str:
    below = line.kind in ("published", "difference") and line.labels[i]
    return rf"\quad {line.kind}" if below else _latex(line.labels[i])


def _line(cells) -> str:
    return " & ".join(cells) + r" \\"


def _latex(name: str) -> str:
    return "".join(_ESCAPES.get(letter, letter) for letter in name)


def _markdown(name: str) -> str:
    return re.sub(r"([\\|`*_<>\[\]])", r"\\\1", name)


def _flat(value):
    if isinstance(value, dict):
        return " ".join(f"{key}={'' if item is None else item}" for key, item in value.items())
    return " ".join(map(str, value)) if isinstance(value, list) else value
