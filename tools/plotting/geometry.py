"""Alignment and uniformity of test features, as each run measured them, of every method of a folder of results.

Source: Wang and Isola (ICML 2020).
"""
from __future__ import annotations

import statistics

from matplotlib.figure import Figure

from dassl.utils import UserError
from tools.tables.layouts import method_names
from tools.tables.rows import Row

from .style import Theme, header, legend, sheet

KINDS = ("images", "texts", "both")


def draw(rows: list[Row], theme: Theme) -> Figure:
    """Alignment against uniformity, the mean of the seeds of each row; a panel for images, texts and both.

    Raises:
        UserError: no run among the rows has these measures.
    """
    rows = [row for row in rows if row.on_test] or rows
    points = {kind: [(row, *found) for row in rows if (found := _mean(row, kind))] for kind in KINDS}
    if not any(points.values()):
        raise UserError("None of these runs has measured alignment and uniformity (embedding in results.json). Run "
                        "them again with this version.")
    points = {kind: found for kind, found in points.items() if found}
    names, datasets = method_names(rows), list(dict.fromkeys(row.dataset for row in rows))
    looks = {key: theme.look(i) for i, key in enumerate(names)}
    side_by_side = max(1, min(len(points), int(theme.wide(3.1 * len(points)) / 2)))
    figure = sheet(theme, 3.1 * len(points) + 0.4, (2.4 if theme.paper else 3.2) * -(-len(points) // side_by_side))
    panels = figure.subplots(-(-len(points) // side_by_side), side_by_side, squeeze=False).flat
    handles = {}
    for (kind, found), axes in zip(points.items(), panels):
        for row, aligned, uniform in found:
            key = row.method
            handles[names[key]], = axes.plot(uniform, aligned, **{**looks[key], "linestyle": ""}, gid=f"{kind} point")
            if len(datasets) > 1:
                axes.annotate(row.dataset, (uniform, aligned), xytext=(4, 3), textcoords="offset points",
                              size=theme.small, color=theme.muted).set_in_layout(False)
        axes.set(title=kind, xlabel="uniformity", ylabel="alignment")
        axes.margins(0.2)
    for empty in panels:
        empty.set_axis_off()
    legend(figure, list(handles.values()), list(handles))
    without = sorted(name for name in names.values() if name not in handles)
    header(figure, theme, "Alignment and uniformity of test features", [
        "Lower is better: features that belong together lie close (alignment), all spread evenly (uniformity). Images: "
        "pairs of a class. Texts: prompts of a class. Both: an image and its class's texts; all features together.",
        *([f"Not measured: {', '.join(without)}."] if without else [])])
    return figure


def _mean(row: Row, kind: str) -> tuple[float, float] | None:
    """Alignment and uniformity; of texts alone, alignment is 0 where a class has one."""
    found = [run.record["embedding"] for run in row.runs.values() if run.record and "embedding" in run.record]
    pairs = [(each["alignment"][kind], each["uniformity"][kind]) for each in found]
    pairs = [(0.0 if a is None and kind == "texts" else a, u) for a, u in pairs]
    pairs = [pair for pair in pairs if None not in pair]
    return tuple(map(statistics.fmean, zip(*pairs, strict=True))) if pairs else None
