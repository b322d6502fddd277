"""What the recipes know of a row: the cell it would be in their table, its published value, its name in an ablation."""
from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

import yaml

from tools import protocols
from tools.recipes import CONFIGS, ZEROSHOT, Cell, Recipe, RecipeError, load_recipe

from .rows import Row

# Options that change no result.
WITHOUT_EFFECT = frozenset({"TRAIN.CHECKPOINT_FREQ", "TRAIN.PRINT_FREQ", "DATALOADER.NUM_WORKERS", "VERBOSE",
                            "USE_CUDA", "OUTPUT_DIR", "DATASET.ROOT"})


@lru_cache
def shipped() -> tuple[Recipe, ...]:
    """The recipes of configs/recipes."""
    return tuple(load_recipe(path.stem) for path in sorted((CONFIGS / "recipes").glob("*.yaml")))


def cells_like(row: Row, recipes: Iterable[Recipe]) -> list[Cell]:
    """The cells of the recipes that have the row's trainer, yaml, dataset, shots and protocol, without options."""
    if not row.base:                        # nobody knows its yaml
        return []
    found, dataset = [], row.source or row.dataset
    recipes = [recipe for recipe in recipes if recipe.trainer == row.trainer]
    for recipe in [r for r in recipes if dataset in r.datasets] or recipes:
        try:
            cells = _expanded(recipe, row)
        except RecipeError:                 # a dataset, yaml or protocol that this recipe does not have
            continue
        found += [c for c in cells if c.dataset == row.dataset and _half(c) == row.classes and _source(c) == row.source]
    return found


def add_published(row: Row, cell: Cell | None, recipes: Iterable[Recipe]) -> None:
    """The value of the recipe's cell that the row is, and the row's name in the recipe's ablation."""
    if cell is not None and not row.options:
        row.published, row.published_from = cell.published, cell.published_from
    for recipe in recipes if not row.classes and not row.source else ():
        named = [(name, opts) for name, opts in recipe.variants.items() if recipe.trainer == row.trainer
                 and all(key in row.options and same(row.options[key], value) for key, value in opts.items())]
        if named:
            row.variant, row.variant_opts = max(named, key=lambda pair: len(pair[1]))
            _add_published_variant(row, recipe)
            return


def variant_options(row: Row) -> dict[str, str]:
    """The options that make the row its variant; the others it shares with the variants beside it."""
    return {key: value for key, value in row.options.items() if key in row.variant_opts}


def variant_rank(row: Row, recipes: Iterable[Recipe]) -> int:
    """Where the row's variant stands in its recipe; 0 without one."""
    names = [name for recipe in recipes if recipe.trainer == row.trainer for name in recipe.variants]
    return names.index(row.variant) if row.variant in names else 0


def same(one: str, other) -> bool:
    """Whether two options mean the same: 0.0 and 0, True and true."""
    one, other = (yaml.safe_load(str(value)) for value in (one, other))
    return one == other


def _expanded(recipe: Recipe, row: Row) -> list[Cell]:
    """Cells that the row may be; those of a sweep say by an "@" in their name how prompts came to other datasets."""
    if row.classes:
        return protocols.expand(recipe, recipe.cell(row.dataset, row.shots, 1, config=row.base), "base2new", None)
    source = row.source or row.dataset
    cells = [recipe.cell(row.dataset, row.shots, 1, config=row.base)]
    if recipe.trainer != ZEROSHOT and not isinstance((recipe.table.get("protocols") or {}).get("transfer"), str):
        trained = recipe.cell(source, row.shots, 1, config=row.base)
        cells += protocols.expand(recipe, trained, "cross", [row.dataset])[:None if row.source else 1]
    tag = re.search(r"@(transfer|from)", row.config)
    if tag:
        return [cell for cell in cells if cell.tag.startswith(tag[0])]
    return [cell for cell in cells if not cell.tag] if row.of_a_sweep else cells


def _half(cell: Cell) -> str:
    half = cell.tag.removeprefix("@")
    return half if half in protocols.HALVES else ""


def _source(cell: Cell) -> str:
    other = cell.train_on is not None and cell.train_on.dataset != cell.dataset and cell.trainer != ZEROSHOT
    return cell.train_on.dataset if other else ""


def _add_published_variant(row: Row, recipe: Recipe) -> None:
    if row.options != variant_options(row):
        return
    try:
        plain = recipe.cell(row.dataset, row.shots, 1, config=row.base)
        cells = protocols.expand(recipe, plain, "ablation", None)
    except RecipeError:
        return
    for cell in cells:
        if cell.variant == row.variant and cell.published is not None:
            row.published, row.published_from = cell.published, cell.published_from
