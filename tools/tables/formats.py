"""Grids as plain text, Markdown, HTML, LaTeX and CSV; rows as CSV and JSON. CSV and JSON are unrounded."""
from __future__ import annotations

import html as markup
import json
import re
from collections.abc import Callable, Iterable

from tabulate import tabulate

from .grid import Grid, Value
from .layouts import protocol_of
from .rows import Row, with_summaries

LEGEND = ("accuracy on the test split, percent: mean ± population standard deviation over seeds; (2/3): seeds found "
          "of those that were asked for")
FLAG = "!"
_LONG = 40                      # lines from which a LaTeX table is also kept to the height of the page
_ESCAPES = {"\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "_": r"\_", "&": r"\&", "%": r"\%", "$": r"\$",
            "#": r"\#", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
            ">": r"\textgreater{}", "±": r"$\pm$", "|": r"\textbar{}", '"': "''"}
PREAMBLE = "\\documentclass{article}\n\\usepackage[utf8]{inputenc}\n" \
           "\\usepackage{booktabs}\n\\usepackage{graphicx}\n\\usepackage[margin=2cm]{geometry}\n\\begin{document}"
_NARROWER = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"     # never wider, never enlarged
_LOWER = r"\resizebox*{!}{\ifdim\totalheight>0.85\textheight 0.85\textheight\else\totalheight\fi}{%"


def text(grids: list[Grid], rows: list[Row], digits: int) -> str:
    parts = []
    for grid in grids:
        parts += [grid.title, "", _tabulate(grid, digits, "simple", str, ("{}", "*{}*", "_{}_")), ""]
    return "\n".join([*parts, *notes(grids, rows, digits, "*best*, _second_")])


def markdown(grids: list[Grid], rows: list[Row], digits: int) -> str:
    parts = []
    for grid in grids:
        parts += [f"### {_markdown(grid.title)}", "",
                  _tabulate(grid, digits, "pipe", _markdown, ("{}", "**{}**", "<u>{}</u>")), ""]
    below = notes(grids, rows, digits)
    return "\n".join([*parts, *(f"- {_markdown(note)}" for note in below), *_best(grids, "- **best**, <u>second</u>")])


def html(grids: list[Grid], rows: list[Row], digits: int) -> str:
    """A page without any script or other file."""
    parts = ['<!DOCTYPE html>\n<meta charset="utf-8">\n<meta name="viewport" content="width=device-width">',
             "<title>Results</title>\n<style>body{font:16px sans-serif;margin:1em}table{border-collapse:collapse}"
             "caption{text-align:left;font-weight:bold;padding:.5em 0}th{text-align:left}"
             "td,th{padding:.2em .7em;white-space:nowrap}thead{border-top:2px solid;border-bottom:1px solid}"
             "tbody{border-bottom:2px solid}div{overflow-x:auto;margin-bottom:1.5em}</style>"]
    for grid in grids:
        table = _tabulate(grid, digits, "unsafehtml", markup.escape, ("{}", "<b>{}</b>", "<u>{}</u>"), once=True)
        caption = f"<table>\n<caption>{markup.escape(grid.title)}</caption>"
        parts.append(f"<div>{table.replace('<table>', caption, 1)}</div>")
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
        columns = "".join(side[0] for side in _align(grid))
        tabular = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", _line(map(_latex, grid.head)), r"\midrule"]
        for line, cells in zip(grid.lines, _cells(grid, digits, _latex, (
                "{}", r"\mathbf{{{}}}", r"\underline{{{}}}"), math=True, once=True)):
            tabular += [r"\midrule"] * line.rule + [_line(cells)]
        tabular += [r"\bottomrule", r"\end{tabular}"]
        scales = [_NARROWER, *[_LOWER] * (len(grid.lines) > _LONG)]
        parts += ["", r"\begin{table}[t]", r"\centering", rf"\caption{{{_caption(grid)}}}",
                  rf"\label{{tab:{label}}}", *scales, *tabular[:-1], tabular[-1] + "}" * len(scales), r"\end{table}"]
    return "\n".join([*parts, *([r"\end{document}"] if standalone else [])])


def records(rows: list[Row]) -> list[dict]:
    """A flat record per row, H and averages over targets among them; numbers as they were measured."""
    return [{
        "protocol": protocol_of(row), "dataset": row.dataset, "trainer": row.trainer, "config": row.config,
        "base_config": row.base, "options": dict(row.options), "words": row.words, "beyond_yaml": dict(row.beyond),
        "variant": row.variant, "where": row.where, "shots": row.shots, "classes": row.classes or "all",
        "trained_on": row.source or None, "mean": row.mean, "std": row.spread, "n": len(row.found),
        "n_wanted": len(row.seeds), "seeds": {str(s): row.seeds[s] for s in sorted(row.seeds)},
        "missing_seeds": row.missing, "collapsed_seeds": {str(s): why for s, why in row.collapsed.items()},
        "published": row.published, "difference": row.difference,
        "published_from": row.published_from if row.published is not None else "", "seconds": row.mean_seconds,
        "learned_parameters": row.learned, "folder": str(row.folder) if row.folder else None}
        for row in with_summaries(rows)]


def as_json(grids: list[Grid], rows: list[Row]) -> str:
    """{"rows": as `records`, "tables": the same numbers as lines and columns}."""
    tables = [{"name": grid.name, "title": grid.title, "columns": grid.head, "lines": [
        {"labels": line.labels, "kind": line.kind, "values": [value.number for value in line.values],
         "over_first": [value.over for value in line.values]} for line in grid.lines]} for grid in grids]
    return json.dumps({"unit": "percent", "std": "population", "rows": records(rows), "tables": tables}, indent=2,
                      ensure_ascii=False)


def as_csv(rows: list[Row]) -> str:
    """One line per row; of several values in one field, pairs are written 1=93.1 and parted by spaces."""
    return _csv({key: _flat(value) for key, value in record.items()} for record in records(rows))


def grids_as_csv(grids: list[Grid]) -> str:
    """The lines of the tables; each column of numbers also has its std, how many seeds, and points above the first."""
    def line_of(grid: Grid, line) -> dict:
        found = {"table": grid.title, **dict(zip(grid.head, line.labels)), "kind": line.kind}
        for name, value in zip(grid.head[grid.labels:], line.values):
            found[name] = value.number
            if not value.signed:
                row = value.row
                found |= {f"{name} std": row.spread if row else None, f"{name} n": len(row.found) if row else None}
                found |= {f"{name} over first": value.over} if grid.ranked else {}
        return found

    return _csv(line_of(grid, line) for grid in grids for line in grid.lines)


def _csv(lines: Iterable[dict]) -> str:
    import pandas

    return pandas.DataFrame(list(lines)).convert_dtypes().to_csv(index=False).rstrip("\n")


def notes(grids: list[Grid], rows: list[Row], digits: int, best: str = "") -> list[str]:
    """What the numbers are, what is missing, what looks wrong, and where published values were read."""
    shown = list({id(row): row for grid in grids for row in grid.rows}.values()) if grids else rows
    shown += [part for row in shown for part in row.parts or () if part not in shown]
    found = [LEGEND, *_best(grids, best), *dict.fromkeys(note for grid in grids for note in grid.notes)]
    found += [f"missing: {row.label}, seed{'s' * (len(row.missing) > 1)} {', '.join(map(str, row.missing))}"
              for row in shown if row.missing and not row.parts]
    found += collapsed(shown, digits)
    found += [f"no published value for {row.label}: its recipe has not "
              f"{', '.join(f'{key} {value}' for key, value in row.changed.items())}" for row in shown if row.changed]
    sources = dict.fromkeys((row.trainer, row.published_from) for row in shown
                            if row.published is not None and row.published_from and not row.parts)
    return found + settings(shown) + [f"published ({trainer}): {source}" for trainer, source in sources]


def collapsed(rows: list[Row], digits: int) -> list[str]:
    """A line for each seed that is taken for collapsed."""
    return [f"{FLAG} {row.label}, seed {seed}: {row.seeds[seed]:.{digits}f} is {reason}; it is part of the mean"
            for row in rows if not row.parts for seed, reason in row.collapsed.items()]


def _best(grids: list[Grid], words: str) -> list[str]:
    return [words] * bool(words and any(grid.ranks(1) for grid in grids))


def settings(rows: list[Row]) -> list[str]:
    """What recipes set and trainer yamls do not, a line for methods of the same; of several values, where each is."""
    methods: dict[tuple, list[Row]] = {}
    for row in rows:
        if not row.parts and (row.cells or row.beyond):
            methods.setdefault((row.trainer, row.base), []).append(row)
    found: dict[str, list[str]] = {}
    for (trainer, base), own in methods.items():
        words = []
        for key in dict.fromkeys(key for row in own for key in row.beyond):
            values: dict[str, list[Row]] = {}
            for row in own:
                values.setdefault(row.beyond.get(key, row.options.get(key, "as in the yaml")), []).append(row)
            words.append(f"{key} " + ", ".join((value or '""') + (f" ({_places(some, own)})" if len(values) > 1 else "")
                                               for value, some in values.items()))
        if words:
            found.setdefault("; ".join(words), []).append(f"{trainer} ({base})")
    return [f"{', '.join(names)}: {'its recipe sets' if len(names) == 1 else 'their recipes set'} {words}, "
            f"which {'its yaml does' if len(names) == 1 else 'their yamls do'} not" for words, names in found.items()]


def _places(some: list[Row], all_rows: list[Row]) -> str:
    """What sets rows apart from the others of their method: shots, else datasets, else both."""
    of = {"shots": lambda row: f"{row.shots} shot{'s' * (row.shots != 1)}", "dataset": lambda row: row.dataset,
          "both": lambda row: f"{row.dataset} {row.classes or row.tag} {row.shots} shots".replace("  ", " ")}
    others = [row for row in all_rows if row not in some]
    for name in of.values():
        if not {name(row) for row in some} & {name(row) for row in others}:
            break
    return ", ".join(dict.fromkeys(map(name, some)))


def _tabulate(grid: Grid, digits: int, style: str, escape: Callable[[str], str], ranks: tuple, once=False) -> str:
    return tabulate(_cells(grid, digits, escape, ranks, once=once), list(map(escape, grid.head)), tablefmt=style,
                    disable_numparse=True, colalign=_align(grid))


def _cells(grid: Grid, digits: int, escape: Callable[[str], str], ranks: tuple[str, str, str], math: bool = False,
           once: bool = False) -> list[list[str]]:
    """The texts of each line. `ranks`: how any, the best and the second number look; `once`: no label twice in turn."""
    places, found, former = grid.ranks(digits), [], []
    for line in grid.lines:
        below = line.kind in ("published", "difference")
        labels = [(rf"\quad {label}" if below and math and label else escape(label)) for label in line.labels]
        if once and former and not line.rule and labels[0] == former and len(labels) > 1:
            labels[0] = ""
        former = labels[0] or former
        found.append([*labels, *(_cell(v, digits, ranks[places.get(id(v), 0)], math) for v in line.values)])
    return found


def _cell(value: Value, digits: int, look: str, math: bool) -> str:
    """"93.1 ± 0.4 (2/3) ! (+1.2)", as far as there is something of each."""
    row = value.row
    if value.number is None:
        missing = row is not None and row.seeds
        return ("--" if math else "-") + (f" (0/{len(row.seeds)})" if missing else "")
    number, sign = look.format(rounded(value.number, digits, value.signed)), r" \pm " if math else " ± "
    if row and row.spread is not None:
        number += f"{sign}{row.spread:.{digits}f}"
    in_math = (lambda text: f"${text}$") if math else str
    words = [in_math(number)]
    if row:
        words += [f"({len(row.found)}/{len(row.seeds)})"] * bool(row.missing) + [FLAG] * bool(row.collapsed)
    if value.over is not None:
        words.append(f"({in_math(rounded(value.over, digits, signed=True))})")
    return " ".join(words)


def rounded(number: float, digits: int, signed: bool = False) -> str:
    """"93.1", or "+0.4"; never -0.0."""
    return f"{round(number, digits) + 0.0:{'+' if signed else ''}.{digits}f}"


def _caption(grid: Grid) -> str:
    values = [value for line in grid.lines for value in line.values]
    words = [rf"{_latex(grid.title)}: mean $\pm$ standard deviation over seeds, \%."]
    words += [r"Best in bold, second underlined."] * bool(grid.ranks(1))
    words += ["In parentheses: points above the first line."] * any(value.over is not None for value in values)
    words += ["(2/3): seeds found of those asked for."] * any(value.row and value.row.missing for value in values)
    words += [f"{FLAG}: with a seed that has collapsed."] * any(value.row and value.row.collapsed for value in values)
    return " ".join(words)


def _align(grid: Grid) -> list[str]:
    return ["left"] * grid.labels + ["right"] * (len(grid.head) - grid.labels)


def _line(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _latex(name: str) -> str:
    return "".join(_ESCAPES.get(letter, letter) for letter in name)


def _markdown(name: str) -> str:
    return re.sub(r"([\\|`*_<>\[\]])", r"\\\1", name)


def _flat(value):
    if isinstance(value, dict):
        return " ".join(f"{key}={'' if item is None else item}" for key, item in value.items())
    return " ".join(map(str, value)) if isinstance(value, list) else value
