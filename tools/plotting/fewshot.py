"""Accuracy against shots, a panel per dataset and a line per method: the few-shot figure of CoOp's paper.

Source: the form is that of Learning to Prompt for Vision-Language Models (Zhou et al., IJCV 2022), main results.
"""
from __future__ import annotations

import math
import statistics
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dassl.utils import UserError
from tools import table
from tools.runs.published import shipped
from tools.runs.recipe import ZEROSHOT, RecipeError, load_recipe
from tools.tables.layouts import method, method_names

from .style import BODY, HEADING, MARGIN, Page, Theme, flow, header_height, width_of

AVERAGE = "average"
MARKS = "osvP"                          # with the theme's hues, what tells methods apart
STARS = "*Xph"                          # zero-shot results, of up to so many backbones
COLUMNS, PANEL, AXIS, GAP = 4, (2.15, 1.8), 0.5, 0.75          # panels in a line; their size, left and below: inches
LEAST_WIDTH = 6.4


@dataclass(frozen=True)
class Point:
    """One number of shots: mean and spread over seeds, percent; `complete` where no seed is missing."""

    shots: int
    mean: float
    spread: float
    complete: bool = True


@dataclass
class Results:
    """What was measured, and what was published.

    Attributes:
        curves, published: {dataset: {method: points by rising shots}}.
        zero_shot, zero_shot_published: {dataset: {name: percent}}, a name for each backbone.
    """

    curves: dict[str, dict[str, list[Point]]]
    published: dict[str, dict[str, list[Point]]]
    zero_shot: dict[str, dict[str, float]]
    zero_shot_published: dict[str, dict[str, float]]

    @property
    def methods(self) -> list[str]:
        """Those that were run, then those of which only published values are known."""
        return list(dict.fromkeys(name for by_dataset in (self.curves, self.published) for own in by_dataset.values()
                                  for name in own))

    @property
    def measured(self) -> set[str]:
        return {name for own in self.curves.values() for name in own}

    @property
    def zero_shot_names(self) -> list[str]:
        return list(dict.fromkeys(name for own in self.zero_shot.values() for name in own))


def read(folder: Path, published: str = "own") -> Results:
    """The runs below a folder of results that were tested on a test split, but for those of other protocols.

    Datasets come in the papers' order; zero-shot results are those of the backbones that were trained.

    Args:
        published: values of the methods that were run ("own"), of every recipe ("all"), or "none".
    Raises:
        UserError: there is none with shots.
    """
    rows = [row for row in table.scan(folder) if row.mean is not None and row.on_test and not row.classes
            and not row.source and not row.tag]
    few = [row for row in rows if row.shots is not None and row.shots > 0]
    if not few:
        raise UserError(f"There is no finished few-shot run (<dataset>/<trainer>/<config>_<k>shots/seed<s>/"
                        f"results.json) below {folder}. Name the folder that was given as OUTPUT, or a run folder.")
    names = method_names(few)
    found = Results({}, {}, {}, {})
    seeds = max(len(row.found) for row in few)
    order = {dataset: place for place, dataset in enumerate(load_recipe("coop").datasets)}
    few.sort(key=lambda row: (order.get(row.dataset, len(order)), row.shots))
    once = {(row.dataset, row.trainer, row.config): method(row) for row in reversed(few)}     # of several folders
    for row in few:
        name = names[method(row)]
        point = Point(row.shots, row.mean, row.spread or 0.0, len(row.found) == seeds)
        found.curves.setdefault(row.dataset, {}).setdefault(name, []).append(point)
        first = once[row.dataset, row.trainer, row.config] == method(row)
        if published != "none" and first and (points := _published(row)):
            found.published.setdefault(row.dataset, {})[name] = points
        if published == "all":
            _add_others(found, row, once)
    _add_zero_shot(found, rows, few, published)
    return found


def _add_zero_shot(found: Results, rows: list[table.Row], few: list[table.Row], published: str) -> None:
    """Of every backbone that was trained on a dataset; of several, named by their yaml."""
    zeros = [row for row in rows if any(row.is_zero_shot_of(own) and row.dataset == own.dataset for own in few)]
    several = len({row.base for row in zeros}) > 1
    for row in zeros:
        name = " ".join(filter(None, ["zero-shot", row.base * several, row.where]))
        found.zero_shot.setdefault(row.dataset, {})[name] = row.mean
        first = next(zero for zero in zeros if (zero.dataset, zero.base) == (row.dataset, row.base)) is row
        if published != "none" and first and (points := _published(row)):
            found.zero_shot_published.setdefault(row.dataset, {})[name] = points[0].mean


def average(found: Results) -> Results:
    """The same with a panel for the mean over datasets, where a method has some shots on every one of them."""
    if len(found.curves) < 2:
        return found

    def means(by_dataset: dict[str, dict[str, list[Point]]]) -> dict[str, list[Point]]:
        averaged = {}
        for name in found.methods:
            columns = [{p.shots: p for p in by_dataset.get(d, {}).get(name, [])} for d in found.curves]
            shared = sorted(set.intersection(*map(set, columns)))
            if shared:
                averaged[name] = [Point(k, statistics.fmean(c[k].mean for c in columns), 0.0,
                                        all(c[k].complete for c in columns)) for k in shared]
        return averaged

    def mean_of(by_dataset: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
        own = [by_dataset.get(dataset, {}) for dataset in found.curves]
        means = {name: statistics.fmean(values[name] for values in own) for name in found.zero_shot_names
                 if all(name in values for values in own)}
        return {**({AVERAGE: means} if means else {}), **by_dataset}

    measured, published = means(found.curves), means(found.published)
    if not measured:
        return found
    return Results({AVERAGE: measured, **found.curves},
                   {**({AVERAGE: published} if published else {}), **found.published},
                   mean_of(found.zero_shot), mean_of(found.zero_shot_published))


def draw(folder: Path, theme: Theme, published: str = "own") -> Figure:
    return draw_found(average(read(folder, published)), theme)


def draw_found(found: Results, theme: Theme) -> Figure:
    looks = {name: (theme.hues[i % len(theme.hues)], MARKS[i // len(theme.hues) % len(MARKS)])
             for i, name in enumerate(found.methods)}
    columns = min(COLUMNS, len(found.curves))
    width = max(LEAST_WIDTH, 2 * MARGIN + columns * (PANEL[0] + AXIS) + (columns - 1) * 0.1)
    legend = _legend(found, looks, theme)
    places = flow([0.38 + width_of(text, BODY) for text, *_ in legend], width - 2 * MARGIN)
    incomplete = any(not p.complete for own in found.curves.values() for points in own.values() for p in points)
    lines = ["Accuracy on the test split against training images per class. Bands: standard deviation over seeds."
             + " Hollow points lack seeds that other points have." * incomplete]
    start = header_height("Few-shot accuracy", lines, width)
    top = start + places[-1][1] + 0.65
    page = Page(width, top + math.ceil(len(found.curves) / columns) * (PANEL[1] + GAP) + 0.1, theme)
    page.header("Few-shot accuracy", lines)
    for (x, y), entry in zip(places, legend):
        _legend_entry(page, MARGIN + x, start + y, *entry)
    each = (width - 2 * MARGIN + 0.1) / columns - 0.1
    for i, dataset in enumerate(found.curves):
        x, y = MARGIN + i % columns * (each + 0.1), top + i // columns * (PANEL[1] + GAP)
        page.text(x + AXIS - 0.02, y - 0.24, dataset, HEADING, weight="bold")
        ax = page.axes(x + AXIS, y, each - AXIS, PANEL[1])
        ax.set_gid(dataset)
        _panel(ax, found, dataset, {**looks, **_stars(found, theme)}, theme)
        if i % columns == 0:
            ax.set_ylabel("accuracy, %")
        if i + columns >= len(found.curves):
            ax.set_xlabel("shots")
    return page.figure


def _panel(ax: Axes, found: Results, dataset: str, looks: dict[str, tuple[str, str]], theme: Theme) -> None:
    ax.grid(axis="y")
    for name, points in found.curves[dataset].items():
        shots, means = [p.shots for p in points], [p.mean for p in points]
        colour, mark = looks[name]
        ax.plot(shots, means, color=colour, linewidth=1.6, gid=name)
        ax.fill_between(shots, [p.mean - p.spread for p in points], [p.mean + p.spread for p in points],
                        color=colour, alpha=0.18, linewidth=0, gid=f"{name} band")
        for p in points:
            ax.plot(p.shots, p.mean, mark, markersize=4, color=colour,
                    markerfacecolor=colour if p.complete else theme.page,
                    gid=f"{name} {p.shots}{'' if p.complete else ' lacks seeds'}")
    for name, points in found.published.get(dataset, {}).items():
        ax.plot([p.shots for p in points], [p.mean for p in points], "--D", color=looks[name][0], linewidth=1.1,
                markersize=3.6, markerfacecolor=theme.page, gid=f"{name} published")
    for values, ending, face in ((found.zero_shot, "", theme.ink),
                                 (found.zero_shot_published, " published", theme.page)):
        for name, value in values.get(dataset, {}).items():
            colour, mark = looks[name]
            ax.plot(0, value, mark, markersize=_size(mark), color=colour, markerfacecolor=face, gid=f"{name}{ending}",
                    clip_on=False, zorder=5)
    ticks = sorted({0, *(p.shots for points in found.curves[dataset].values() for p in points)})
    ax.set_xticks(ticks)
    ax.set_xlim(-0.03 * ticks[-1], 1.04 * ticks[-1])
    ax.margins(y=0.12)


def _legend(found: Results, looks: dict[str, tuple[str, str]], theme: Theme) -> list[tuple[str, str, str]]:
    """(text, colour, mark) of each entry."""
    entries = [(name, colour, f"-{mark}") if name in found.measured else (f"{name}, published", colour, "--D")
               for name, (colour, mark) in looks.items()]
    entries += [(name, *look) for name, look in _stars(found, theme).items()]
    if found.published or found.zero_shot_published:
        entries.append(("published (configs/recipes)", theme.muted, "--D"))
    return entries


def _stars(found: Results, theme: Theme) -> dict[str, tuple[str, str]]:
    """Colour and mark of each zero-shot result."""
    return {name: (theme.ink, STARS[i % len(STARS)]) for i, name in enumerate(found.zero_shot_names)}


def _size(mark: str) -> float:
    """Of a zero-shot result's mark; a star is the lightest of them."""
    return 10 if mark == STARS[0] else 6.5


def _legend_entry(page: Page, x: float, y: float, text: str, colour: str, mark: str) -> None:
    ax = page.axes(x, y, 0.28, 0.16, bare=True)
    if mark.startswith("-"):
        ax.plot([0, 1], [0.5, 0.5], "--" if mark.startswith("--") else "-", color=colour, linewidth=1.6)
    ax.plot([0.5], [0.5], mark[-1], color=colour, markersize=4.5 if mark.startswith("-") else _size(mark) - 1,
            markerfacecolor=page.theme.page if mark == "--D" else colour, clip_on=False)
    ax.set(xlim=(0, 1), ylim=(0, 1))
    page.text(x + 0.38, y, text, BODY)


def _add_others(found: Results, row: table.Row, run: Collection[tuple[str, str, str]]) -> None:
    """What is published of methods that were not run, on the row's dataset with the same config's name.

    Args:
        run: (dataset, trainer, config) of those that were.
    """
    here = found.published.setdefault(row.dataset, {})
    for recipe in shipped():
        known = (row.dataset, recipe.trainer, row.config) in run or recipe.trainer in (ZEROSHOT, *here)
        if not known and (points := _published(table.Row(row.dataset, recipe.trainer, row.config, row.shots))):
            here[recipe.trainer] = points


def _published(row: table.Row) -> list[Point]:
    """What recipes know of the same trainer, config and dataset."""
    points: dict[int, float] = {}
    for recipe in shipped():
        if recipe.trainer != row.trainer or row.dataset not in recipe.datasets:
            continue
        for shots in recipe.table["shots"] or [0]:
            try:
                value = recipe.cell(row.dataset, shots, 1, config=row.config).published
            except RecipeError:                     # options of the user are part of the row's config
                continue
            if value is not None:
                points.setdefault(shots, value)
    return [Point(shots, value, 0.0) for shots, value in sorted(points.items())]
