"""What the recipes know of a run: the cell it would be in their table, its published value, its name in an ablation."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache

from tools.runs import protocols
from tools.runs.cell import (
    CLASSES,
    CONFIGS,
    CORRUPTIONS,
    LEFT_OUT,
    NO_EFFECT,
    SHOTS,
    SOURCES,
    TASKS,
    TOGETHER,
    ZEROSHOT,
    Cell,
    RecipeError,
)
from tools.runs.folder import RunFolder, flat
from tools.runs.inputs import parse_yaml
from tools.runs.recipe import Recipe, load_recipe

WITHOUT_EFFECT = NO_EFFECT | {"USE_CUDA", "OUTPUT_DIR", "DATASET.ROOT"}      # nor these: where, not what
_NO_OPTIONS = {*WITHOUT_EFFECT, SHOTS, CLASSES}
_IN_ITS_NAME = {CORRUPTIONS, "TEST.RESET", TASKS, TOGETHER, SOURCES, LEFT_OUT, protocols.ATTACK}   # its dataset or tag


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


def match(runs: list[RunFolder], cell: Cell, recipes: Iterable[Recipe]) -> tuple[Cell | None, dict[str, str]]:
    """The recipe's cell whose published value is for these runs, or None; and what they set otherwise than the nearest.

    Args:
        cell: theirs, as `settled` has it.
    """
    likes = [like for like in cells_like(cell, recipes) if like.published is not None]
    other = [next(filter(None, (changes(run, like) for run in runs)), {}) for like in likes]
    return next((like for like, change in zip(likes, other) if not change), None), min(other, key=len, default={})


def variant(cell: Cell, recipes: Iterable[Recipe]) -> Cell | None:
    """The cell as the variant that a recipe's ablation names, with what is published for it; None where none does."""
    for recipe in recipes:
        named = [(name, opts) for name, opts in recipe.variants.items() if recipe.trainer == cell.trainer
                 and all(key in cell.options and same(cell.options[key], value) for key, value in opts.items())]
        if not named:
            continue
        name, opts = max(named, key=lambda pair: len(pair[1]))
        known = _variants(recipe, cell) if cell.options.keys() <= opts.keys() else []
        value, source = next(((one.published, one.published_from) for one in known if one.variant == name), (None, ""))
        return replace(cell, variant=name, variant_opts=opts, published=value, published_from=source)
    return None


def beyond_yaml(cell: Cell) -> dict[str, str]:
    """What the recipe of a run set other than the trainer yaml, unless the name of the run says it: KEY -> value."""
    yaml_has = _yaml(cell.trainer, cell.config)
    return {key: str(value) for key, value in cell.opts.items()
            if key not in {*_NO_OPTIONS, *_IN_ITS_NAME, *cell.user_opts}
            and not (key in yaml_has and same(yaml_has[key], value))}


@lru_cache
def _yaml(trainer: str, config: str) -> dict[str, object]:
    """Dotted KEY -> value of a yaml of configs/trainers, by the name that cells have for it; {} for any other."""
    folder, _, name = config.rpartition("-")                # "CoOp-tiny": another trainer's
    for path in (CONFIGS / "trainers" / trainer / f"{config}.yaml", CONFIGS / "trainers" / folder / f"{name}.yaml"):
        if path.is_file():
            return flat(parse_yaml(path.read_text(encoding="utf-8")) or {})
    return {}


def same(one, other) -> bool:
    """Whether two options mean the same: 0.0 and 0, True and true."""
    one, other = (parse_yaml(str(value)) for value in (one, other))
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


def _variants(recipe: Recipe, cell: Cell) -> list[Cell]:
    """The recipe's ablation of a cell's method; [] where it has none of this dataset or yaml."""
    try:
        return protocols.expand(recipe, recipe.cell(cell.dataset, cell.shots, 1, config=cell.config), "ablation", None)
    except RecipeError:
        return []
