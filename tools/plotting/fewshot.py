"""Accuracy against shots, a panel per dataset and a line per method: the few-shot figure of CoOp's paper.

Source: the form is that of Learning to Prompt for Vision-Language Models (Zhou et al., IJCV 2022), main results.
"""
from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dassl.utils import UserError
from tools.runs.published import shipped
from tools.runs.recipe import ZEROSHOT, RecipeError
from tools.tables.layouts import method_names
from tools.tables.rows import Row

from .style import Theme, drawable, header, legend, sheet

AVERAGE = "average"
STARS = "*Xph"                          # zero-shot results, of up to so many backbones
COLUMNS, PANEL = 4, (2.5, 2.25)         # panels in a line on a screen, their size: inches
LEAST_PANEL = 1.6                       # width of a panel in a paper: inches
LABEL = 0.11                            # room of a number below the axis: inches
HOLLOW = "Hollow points: some seeds are missing."


def read(rows: Sequence[Row], published: str = "own") -> pd.DataFrame:
    """What was measured on test splits and what was published, without other protocols.

    Datasets and methods come as in `rows`; zero-shot results, at 0 shots, are those of the backbones that were trained.

    Args:
        rows: what to draw.
        published: values of the methods that were run ("own"), of every recipe ("all"), or "none".
    Returns:
        Columns dataset, name, shots, mean, spread (percent), complete (no seed is missing), published.
    Raises:
        UserError: there is none with shots.
    """
    rows = [row for row in rows if row.mean is not None and row.on_test and row.is_plain]
    order = list(dict.fromkeys(row.dataset for row in rows))
    few = sorted((row for row in rows if row.shots is not None and row.shots > 0),
                 key=lambda row: (order.index(row.dataset), row.shots))
    if not few:
        raise UserError("There is no finished few-shot run to draw (training with shots, tested on the test split). "
                        "Name the folder that was given as OUTPUT, or a run folder.")
    names = method_names(few)
    zeros = [row for row in rows if any(row.is_zero_shot_of(own) and row.dataset == own.dataset for own in few)]
    several = len({row.cell.config for row in zeros}) > 1                   # backbones
    named = [*((row, names[row.method]) for row in few), *((row, " ".join(filter(None, [
        "zero-shot", row.cell.config * several, row.where]))) for row in zeros)]
    points = [(row.dataset, name, row.shots or 0, row.mean, row.spread or 0.0, not row.missing, False)
              for row, name in named]
    known: dict[tuple[str, str, str], str] = {}                             # whose values belong to which line
    for row, name in named:
        known.setdefault((row.dataset, row.trainer, row.config), name)      # of several folders the first
    for row in few if published == "all" else ():
        for recipe in shipped():
            if recipe.trainer != ZEROSHOT:
                known.setdefault((row.dataset, recipe.trainer, row.config), recipe.trainer)
    points += [(key[0], name, shots, value, 0.0, True, True) for key, name in known.items() if published != "none"
               for shots, value in _published(*key)]
    return pd.DataFrame(points, columns=["dataset", "name", "shots", "mean", "spread", "complete", "published"]
                        ).drop_duplicates(["dataset", "name", "shots", "published"])


def average(found: pd.DataFrame) -> pd.DataFrame:
    """The same after the mean over datasets, where a method has some shots on every one of them."""
    count = found.dataset.nunique()
    mean = found.groupby(["name", "shots", "published"], sort=False, as_index=False).agg(
        n=("dataset", "nunique"), mean=("mean", "mean"), complete=("complete", "all"))
    mean = mean[mean.n == count].drop(columns="n").assign(dataset=AVERAGE, spread=0.0).sort_values("shots")
    if count < 2 or mean[(mean.shots > 0) & ~mean.published].empty:
        return found
    return pd.concat([mean, found], ignore_index=True)[list(found.columns)]


def draw(rows: Sequence[Row], theme: Theme, published: str = "own") -> Figure:
    return draw_found(average(read(rows, published)), theme)


def draw_found(found: pd.DataFrame, theme: Theme) -> Figure:
    looks, datasets = looks_of(found, theme), list(dict.fromkeys(found.dataset))
    columns = min(COLUMNS, len(datasets))
    if theme.paper:
        columns = min(len(datasets), max(1, int(theme.wide(0) // LEAST_PANEL)))
    lines = math.ceil(len(datasets) / columns)
    columns = math.ceil(len(datasets) / lines)              # 3 + 2 panels rather than 4 + 1
    figure = sheet(theme, max(5.0, columns * PANEL[0]), lines * PANEL[1] + 0.45)
    axes = figure.subplots(lines, columns, squeeze=False)
    for i, ax in enumerate(axes.flat):
        if i >= len(datasets):
            ax.set_axis_off()
            continue
        _panel(ax, found[found.dataset == datasets[i]], looks, theme, figure.get_figwidth() / columns - 0.5)
        ax.set(gid=datasets[i], title=drawable(datasets[i]), ylabel="accuracy, %" if i % columns == 0 else "")
        if i + columns >= len(datasets):
            ax.set_xlabel("shots per class")
    shown = found[(found.shots > 0) & ~found.published].name.unique()
    handles = [Line2D([], [], **(look if name in shown or name.startswith("zero-shot") else _of_published(look, theme)))
               for name, look in looks.items()]
    names = [name if name in shown or name.startswith("zero-shot") else f"{name}, published" for name in looks]
    if found.published.any():
        handles.append(Line2D([], [], **_of_published({"color": theme.muted}, theme)))
        names.append("published")
    legend(figure, handles, names)
    header(figure, theme, "Few-shot accuracy", [" ".join(filter(None, [
        "Mean over seeds on the test split." + " Bands: standard deviation over seeds (ddof = 0)." * theme.band,
        HOLLOW if not found.complete.all() else ""]))])
    return figure


def looks_of(found: pd.DataFrame, theme: Theme) -> dict[str, dict]:
    """How each method's line looks; zero-shot results are stars."""
    names = list(dict.fromkeys(found[found.shots > 0].sort_values("published", kind="stable").name))
    stars = list(dict.fromkeys(found[found.shots == 0].name))
    return {**{name: theme.look(i) for i, name in enumerate(names)},
            **{name: {"color": theme.ink, "marker": STARS[i % len(STARS)], "linestyle": "", "markersize": 8}
               for i, name in enumerate(stars)}}


def _of_published(look: dict, theme: Theme) -> dict:
    return {**look, "marker": look["marker"] if look.get("linestyle") == "" else "D", "markerfacecolor": theme.page,
            "markersize": look.get("markersize", 3.6), "linewidth": 1.0,
            "linestyle": "" if look.get("linestyle") == "" else (0, (1, 1.2))}


def _panel(ax: Axes, own: pd.DataFrame, looks: dict[str, dict], theme: Theme, inches: float) -> None:
    ax.grid(axis="y")
    for (name, published), points in own.groupby(["name", "published"], sort=False):
        look, shots = looks[name], points.shots
        if published:
            ax.plot(shots, points["mean"], gid=f"{name} published", clip_on=bool(shots.min()), **_of_published(
                look, theme))
            continue
        ax.plot(shots, points["mean"], gid=name, clip_on=bool(shots.min()), zorder=3, **look)
        lacking = points[~points.complete]
        if len(lacking):
            ax.plot(lacking.shots, lacking["mean"], gid=f"{name} lacks seeds", zorder=4, **{
                **look, "linestyle": "", "markerfacecolor": theme.page})
        if theme.band and points.spread.any():
            ax.fill_between(shots, points["mean"] - points.spread, points["mean"] + points.spread, alpha=0.16,
                            color=look["color"], linewidth=0, gid=f"{name} band")
    ticks = sorted({0, *own[~own.published].shots})
    ax.set_xticks(ticks)
    for label, tick in zip(ax.get_xticklabels(), ticks):                    # 1 and 2 are close to 0
        label.set_visible(tick == 0 or not any(tick < other < tick + LABEL / inches * ticks[-1] for other in ticks))
    ax.set_xlim(-0.03 * ticks[-1], 1.04 * ticks[-1])
    ax.margins(y=0.12)


def _published(dataset: str, trainer: str, config: str) -> list[tuple[int, float]]:
    """(shots, accuracy) that recipes know of a trainer, config and dataset; 0 shots of one that does not train."""
    known: dict[int, float] = {}
    for recipe in shipped():
        for shots in (recipe.table["shots"] or [0]) if recipe.trainer == trainer and dataset in recipe.datasets else ():
            try:
                value = recipe.cell(dataset, shots, 1, config=config).published
            except RecipeError:                     # options of the user are part of the row's config
                continue
            if value is not None:
                known.setdefault(shots, value)
    return sorted(known.items())
