"""One page of a folder of results: a single HTML file that needs no network and no other file."""
from __future__ import annotations

import datetime
import sys
from collections.abc import Sequence
from pathlib import Path

from dassl.utils import UserError
from dassl.utils.tools import write_text
from tools.runs.run import Run
from tools.tables import formats, layouts
from tools.tables.rows import Row

from .. import fewshot
from . import runs, tables
from .pictures import Picture, picture

HERE = Path(__file__).parent


def write_report(output: Path, path: Path, rows: list[Row], given: Sequence[Path] = (), test: bool = True,
                 title: str = "", root: str = "", plugins: Sequence[str] = ()) -> Path:
    """Write the page; returns its file.

    Args:
        output: folder of results. path: the page. rows: of the tables. given: run folders to open with; () chooses.
        test: also draw what has to load models and datasets.
        title: of the page. root: folder of the datasets, where they have moved. plugins: see `Run`.
    Raises:
        UserError: a given folder is no run's.
    """
    chosen = runs.choose_runs(rows, given)
    looked = []
    for number, folder in enumerate(chosen, 1):
        looked.append(runs.look_into(Run(folder, root=root, plugins=plugins), number, test,
                                     lambda words, n=number: print(f"[{n}/{len(chosen)}] {words}", file=sys.stderr)))
    write_text(render(output, rows, looked, test, title, bool(given)), str(path))
    return path


def render(output: Path, rows: list[Row], looked: list[runs.Looked], test: bool = True, title: str = "",
           runs_first: bool = False) -> str:
    """The page as HTML; whatever comes from names, paths and logs is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    finished = [run for row in rows for seed, run in row.runs.items() if seed not in row.missing]
    minutes = round(sum(second for row in rows for second in row.seconds) / 60)
    grids = layouts.build(rows)
    page = Environment(loader=FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True,
                       undefined=StrictUndefined, keep_trailing_newline=True).get_template("page.html")
    return page.render(
        title=title or f"Results in {output.name or output.absolute().name}", output=str(output.absolute()),
        now=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        css=Markup((HERE / "page.css").read_text(encoding="utf-8")),     # noqa: S704 (a file of ours)
        finished=len(finished), methods=len({r.trainer for r in rows if r.found}),
        datasets=len({r.dataset for r in rows if r.found}),
        hours=f"{minutes} min" if minutes < 120 else f"{minutes / 60:.0f} h", grids=[*map(tables.of_grid, grids)],
        notes=formats.notes(grids, rows, tables.DIGITS, "bold: best of a column and block; underlined: second"),
        fewshot=_fewshot(rows), looked=looked, runs_first=runs_first, test=test, unfinished=tables.unfinished(rows),
        settings=tables.settings_that_differ(finished), environments=tables.environments([r.record for r in finished]))


def _fewshot(rows: list[Row]) -> Picture | None:
    """The few-shot curves; None where no run has shots."""
    try:
        found = fewshot.average(fewshot.read(rows))
    except UserError:
        return None
    first = found[(found.dataset == found.dataset.iloc[0]) & (found.shots > 0) & ~found.published]
    said = "; ".join(f"{name} on {found.dataset.iloc[0]} from {own['mean'].iloc[0]:.1f} % at {own.shots.iloc[0]} to "
                     f"{own['mean'].iloc[-1]:.1f} % at {own.shots.iloc[-1]} shots per class"
                     for name, own in first.groupby("name", sort=False))
    return picture(lambda theme: fewshot.draw_found(found, theme), "Few-shot accuracy, a panel per dataset and a line "
                   f"per method. {said}. The tables have all numbers.")

