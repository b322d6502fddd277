"""Runs below any folder, put together into rows by their cells: the seeds of one row lie in one folder.

Runs that have begun and have no result count as missing seeds, and so do those that their sweep was asked for.
"""
from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from tools.runs import published
from tools.runs.folder import RunFolder, below
from tools.runs.recipe import Recipe, load_recipe

from .rows import Row, by, in_order, row_of


def scan(*roots: str | Path, recipes: tuple[Recipe, ...] = ()) -> list[Row]:
    """Rows of every run below the folders, in order.

    Args:
        recipes: asked for published values and variants before those of configs/recipes.
    """
    recipes = (*recipes, *published.shipped())
    rows: dict[tuple, Row] = {}
    for run in below(*roots):
        if run.accuracy is None and (not run.given or run.finished and "metrics" in run.record):
            continue                                        # nothing to show, and nothing that is missing
        cell, split = published.settled(run, recipes), run.record.get("split", "test") if run.record else "test"
        if split != "test":                                 # the row says so by itself
            cell = replace(cell, user_opts={k: v for k, v in cell.user_opts.items() if k != "TEST.SPLIT"})
        row = row_of(cell, run.folder.parent)
        name = run.folder.name.rstrip("0123456789")         # seeds of one row: seed1, seed2, or mine1, mine2
        row.called = "" if cell.config else f"{run.folder.parent.name}/{name}"
        row.where = f"on {split}" if split != "test" else ""
        keys = ((run.folder.parent, cell.kind, row.where, name, n) for n in range(1, len(rows) + 2))
        row = rows.setdefault(next(k for k in keys if k not in rows or run.seed not in rows[k].seeds), row)
        row.add(run.seed, run.record, cell.seeds)
        row.runs[run.seed] = run
    for row in rows.values():
        _ask(row, recipes)
    _tell_apart(list(rows.values()))
    papers = load_recipe("zeroshot").datasets                               # in their order

    def place(row: Row) -> tuple[int, int]:
        variants = [name for recipe in recipes if recipe.trainer == row.trainer for name in recipe.variants]
        return (papers.index(row.dataset) if row.dataset in papers else len(papers),
                variants.index(row.variant) if row.variant in variants else 0)

    return in_order(sorted(rows.values(), key=place))


def _ask(row: Row, recipes: tuple[Recipe, ...]) -> None:
    """Published value and variant of a row as the recipes have them, and what else its runs were set to."""
    like, changed = published.match(list(row.runs.values()), row.cell, recipes)
    if like and not row.options:
        row.published, row.published_from = like.published, like.published_from
    if not row.classes and not row.source and (variant := published.variant(row.cell, recipes)):
        row.cell = variant
        if variant.published is not None:
            row.published, row.published_from = variant.published, variant.published_from
    if row.published is None and not row.options:
        row.changed = changed


def _tell_apart(rows: list[Row]) -> None:
    """Rows that would read the same say in which folder of results they lie, and with them all others of these."""
    alike = by(rows, lambda row: (row.label, row.source))
    twice = [own for own in alike.values() if len(own) > 1]
    if not twice:
        return
    places: dict[int, Path] = {id(row): _first(row).place for row in rows}
    among = {places[id(row)] for own in twice for row in own}
    common = os.path.commonpath(among)
    common = os.path.dirname(common) if Path(common) in among else common
    for own in alike.values():
        places_of_own = {places[id(row)] for row in own}
        for row in own:
            if (place := places[id(row)]) in among:
                if len(places_of_own) < len(own):           # by hand, in folders next to each other
                    place = str(_first(row).folder).rstrip("0123456789" * (len(row.runs) > 1))
                row.where = " ".join(filter(None, [row.where, f"in {os.path.relpath(place, common)}"]))


def _first(row: Row) -> RunFolder:
    return next(iter(row.runs.values()))
