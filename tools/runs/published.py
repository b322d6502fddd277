"""What the recipes know of a run: the cell it would be in their table, its published value, its name in an ablation."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache

from tools.runs import protocols
from tools.runs.cell import CLASSES, CONFIGS, CORRUPTIONS, NO_EFFECT, SHOTS, ZEROSHOT, Cell, RecipeError
from tools.runs.folder import RunFolder, flat
from tools.runs.plain_yaml import parse
from tools.runs.recipe import Recipe, load_recipe

WITHOUT_EFFECT = NO_EFFECT | {"USE_CUDA", "OUTPUT_DIR", "DATASET.ROOT"}      # nor these: where, not what
_NO_OPTIONS = {*WITHOUT_EFFECT, SHOTS, CLASSES}


@lru_cache
def shipped() -> tuple[Recipe, ...]:
    """The recipes of configs/recipes."""
    return tuple(load_recipe(path.stem) for path in sorted((CONFIGS / "recipes").glob("*.yaml")))


def settled(run: RunFolder, recipes: Iterable[Recipe]) -> Cell:
    """The run's cell. One made by hand is set against the recipes: its options are what none of these has, and where it
    tests another dataset it is tagged as theirs are.
    """
    cell = run.cell
    if cell.recipe:
        return cell
    found = [(like, changes(run, like)) for like in cells_like(cell, recipes)]
    plain = {key: str(value) for key, value in cell.user_opts.items() if key not in _NO_OPTIONS}
    options = min((change for _, change in found), key=len, default=plain)
    tag = next((like.tag for like, change in found if like.tag.startswith(("@transfer", "@from"))
                and not set(change) - set(options)), "")
    return replace(cell, tag=tag, user_opts={key: value for key, value in options.items() if value != "None"})


def cells_like(cell: Cell, recipes: Iterable[Recipe]) -> list[Cell]:
    """The cells of the recipes that have its trainer, yaml, dataset, shots and protocol, without options."""
    if not cell.config:                     # nobody knows its yaml
        return []
    found, dataset = [], cell.source or cell.dataset
    recipes = [recipe for recipe in recipes if recipe.trainer == cell.trainer]
    for recipe in [r for r in recipes if dataset in r.datasets] or recipes:
        try:
            cells = _expanded(recipe, cell)
        except RecipeError:                 # a dataset, yaml or protocol that this recipe does not have
            continue
        found += [c for c in cells if (c.dataset, c.classes, c.source) == (cell.dataset, cell.classes, cell.source)]
    return found


def changes(run: RunFolder, cell: Cell) -> dict[str, str]:
    """What a run was given, or is set to, other than a recipe's cell has it: KEY -> the run's value."""
    if not run.given:
        return {}
    keys = [key for key in {**cell.opts, **run.opts} if key not in _NO_OPTIONS]
    other = {key: run.opts.get(key) for key in keys
             if key not in run.opts or key not in cell.opts or not same(run.opts[key], cell.opts[key])}
    if other and None in other.values():                    # left to the yaml, which may have the recipe's value
        config = flat(run.settings_or_none)
        other = {key: config.get(key) if value is None else value for key, value in other.items()}
        other = {key: value for key, value in other.items() if key not in cell.opts or not same(value, cell.opts[key])}
    return {key: str(value) for key, value in other.items()}


def value(run: RunFolder, cell: Cell, recipes: Iterable[Recipe]) -> float | None:
    """What is published for a run that has a recipe's settings, percent; None where nothing is.

    Args:
        cell: as `settled` has it.
    """
    plain = not cell.options
    return next((like.published for like in cells_like(cell, recipes) if plain and like.published is not None
                 and not changes(run, like)), None)


def add_published(row, cell: Cell | None, recipes: Iterable[Recipe]) -> None:
    """The value of the recipe's cell that a table's row is, and the row's name in the recipe's ablation."""
    if cell is not None and not row.options:
        row.published, row.published_from = cell.published, cell.published_from
    for recipe in recipes if not row.classes and not row.source else ():
        named = [(name, opts) for name, opts in recipe.variants.items() if recipe.trainer == row.trainer
                 and all(key in row.options and same(row.options[key], value) for key, value in opts.items())]
        if named:
            row.variant, row.variant_opts = max(named, key=lambda pair: len(pair[1]))
            _add_published_variant(row, recipe)
            return


def beyond_yaml(cell: Cell) -> dict[str, str]:
    """What a run was set to by its recipe or protocol, other than its trainer yaml has it: KEY -> value."""
    yaml_has = _yaml(cell.trainer, cell.config)
    return {key: str(value) for key, value in cell.opts.items()
            if key not in {*_NO_OPTIONS, *cell.user_opts, CORRUPTIONS, "TEST.RESET"}
            and not (key in yaml_has and same(yaml_has[key], value))}


@lru_cache
def _yaml(trainer: str, config: str) -> dict[str, object]:
    """Dotted KEY -> value of a yaml of configs/trainers, by the name that cells have for it; {} for any other."""
    folder, _, name = config.rpartition("-")                # "CoOp-tiny": another trainer's
    for path in (CONFIGS / "trainers" / trainer / f"{config}.yaml", CONFIGS / "trainers" / folder / f"{name}.yaml"):
        if path.is_file():
            return flat(parse(path.read_text(encoding="utf-8")) or {})
    return {}


def variant_options(row) -> dict[str, str]:
    """The options that make the row its variant; the others it shares with the other variants."""
    return {key: value for key, value in row.options.items() if key in row.variant_opts}


def variant_rank(row, recipes: Iterable[Recipe]) -> int:
    """The position of the row's variant in its recipe; 0 without one."""
    names = [name for recipe in recipes if recipe.trainer == row.trainer for name in recipe.variants]
    return names.index(row.variant) if row.variant in names else 0


def same(one: str, other) -> bool:
    """Whether two options mean the same: 0.0 and 0, True and true."""
    one, other = (parse(str(value)) for value in (one, other))
    return one == other


def _expanded(recipe: Recipe, cell: Cell) -> list[Cell]:
    """Cells that it may be; a sweep's is tagged as its protocol has it, of a run by hand nobody said."""
    if cell.classes:
        return protocols.expand(recipe, recipe.cell(cell.dataset, cell.shots, 1, config=cell.config), "base2new", None)
    source = cell.source or cell.dataset
    cells = [recipe.cell(cell.dataset, cell.shots, 1, config=cell.config)]
    if recipe.trainer != ZEROSHOT and not isinstance((recipe.table.get("protocols") or {}).get("transfer"), str):
        trained = recipe.cell(source, cell.shots, 1, config=cell.config)
        cells += protocols.expand(recipe, trained, "cross", [cell.dataset])[:None if cell.source else 1]
    return [like for like in cells if like.tag == cell.tag] if cell.recipe or cell.tag else cells


def _add_published_variant(row, recipe: Recipe) -> None:
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
