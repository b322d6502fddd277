"""Protocols of the papers: which runs a cell of a recipe becomes.

fewshot: trained and tested on all classes of one dataset.
base2new: trained on the first half of the classes, tested on them and on the other half, which it has not seen.
cross, dg: trained once on a source, tested as it is on other datasets (cross) or on the source under a shift (dg).
ood: as dg, on the source's own test images under corruptions, "digits:fog:5"; nothing need be trained.
robust: as cross, each test also under ATTACK, which sees the whole model; without training for a zero-shot recipe.
continual: one test of all corruptions, one after the other, with what was learned at the former ones or without.
incremental: classes arrive in tasks, one after the other; as bounds, all classes at once, CoOp in tasks, zero-shot.
matrix: trained on each dataset, then once more on each target, starting from what was learned there.
lodo: once for each domain of a dataset, trained on the others and tested on it; with all images unless shots are given.
ablation: as fewshot, once for each variant of the method that the recipe names.

Source: CoCoOp (Zhou et al., CVPR 2022), Tables 1 to 3; KaiyangZhou/CoOp ff61507, scripts/cocoop.
"""
from __future__ import annotations

import re
from dataclasses import replace
from hashlib import sha256

from tools.runs.cell import (
    CLASSES,
    CORRUPTIONS,
    FINAL,
    HALVES,
    LEFT_OUT,
    NAMES,
    SOURCES,
    TASKS,
    ZEROSHOT,
    Cell,
    RecipeError,
    corrupted,
    domains_of,
    plain,
)
from tools.runs.recipe import TRAINING_ONLY, Recipe, is_ours, load_recipe, nearest, zeroshot_cell

PROTOCOLS = ("fewshot", "base2new", "cross", "dg", "ood", "continual", "robust", "incremental", "lodo", "matrix",
             "ablation")
ATTACK = "TEST.ATTACK"
ATTACKS = ("pgd:1/255:10",)             # of robust, unless the user's options name one
MATRIX = "@starting_from_"              # the beginning of the tag of a run that starts from another dataset's
IN_TASKS = "@tasks"                     # the beginning of the tag of a run whose classes arrive in tasks
LODO = "@without_"                      # the beginning of the tag of a run that leaves out a domain
SELECT_ON = "DATASET.SELECT_ON"

_IMAGENET = ("caltech101", "oxford_pets", "stanford_cars", "oxford_flowers", "food101", "fgvc_aircraft", "sun397",
             "dtd", "eurosat", "ucf101")
_SHIFTS = ("shapes_noise", "shapes_clutter", "shapes_sketch", "shapes_recoloured", "shapes_lowcontrast")
TARGETS = {
    "cross": {"imagenet": _IMAGENET, "digits": ("shapes",), "shapes": ("digits",)},
    "dg": {"imagenet": ("imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r"), "shapes": _SHIFTS,
           "digits": ("digits_lowcontrast",)},
    # With its source the fifteen of TeCoA (Mao et al., ICLR 2023).
    "robust": {"imagenet": ("cifar10", "cifar100", "stl10", "caltech101", "caltech256", "oxford_pets", "stanford_cars",
                            "food101", "oxford_flowers", "fgvc_aircraft", "sun397", "dtd", "eurosat",
                            "elevater_patch_camelyon"),
               "digits": ("shapes",), "shapes": ("digits",)},
}


def targets_of(protocol: str, source: str) -> tuple[str, ...]:
    """On what a source's prompts are tested unless --targets says otherwise."""
    if protocol in ("ood", "continual"):
        return tuple(f"{plain(source)}:{name}:5" for name in NAMES)
    if source not in TARGETS[protocol]:
        raise RecipeError(f"--protocol {protocol} trains on a source and tests on its targets; those of {source} are "
                          f"for you to name: --targets A B. Known without: {', '.join(TARGETS[protocol])}.")
    return TARGETS[protocol][source]


def expand(recipe: Recipe, cell: Cell, protocol: str, targets: list[str] | None = None,
           tasks: int | None = None) -> list[Cell]:
    """The runs of one cell, trained ones before those that test them.

    Args:
        cell: trained and tested on all classes of its dataset, or of a zero-shot recipe.
        targets: of cross, dg, robust, ood, continual and matrix, or the domains that lodo leaves out; None takes those
            of TARGETS, all corruptions at severity 5, the dataset itself, or each domain.
        tasks: of incremental; None takes 5.
    """
    if tasks is not None and protocol != "incremental":
        raise RecipeError(f"--tasks {tasks} belongs to --protocol incremental, got --protocol {protocol}.")
    if protocol == "incremental":
        return _incremental(recipe, cell, 5 if tasks is None else tasks)
    if protocol in ("cross", "dg", "ood"):
        return _transfer(recipe, cell, protocol, targets)
    ways = {"fewshot": _fewshot, "base2new": _halves, "ablation": _variants, "robust": _robust, "lodo": _without_each,
            "matrix": _starting_from, "continual": _continual}
    return ways[protocol](recipe, cell, targets)


def _unpublished(cell: Cell, **changes) -> Cell:
    """The cell with these changes, under which nothing is published for it."""
    return replace(cell, published=None, published_from="", **changes)


def _of_trained(cell: Cell, trained: Cell | None) -> Cell:
    """The cell as a test of what another one has learned, if there is one."""
    return replace(cell, train_on=trained, load_epoch=trained.max_epoch) if trained else cell


def _transfer(recipe: Recipe, cell: Cell, protocol: str, targets: list[str] | None) -> list[Cell]:
    """The source, then its targets."""
    settings = {} if protocol == "ood" else recipe.protocol("transfer")
    source = _with(cell, settings, "@transfer" if settings.get("opts") else "", cell.dataset)
    source = replace(source, protocol=protocol)
    names = list(targets or targets_of(protocol, cell.dataset))
    return [source, *(replace(_target(recipe, source, name, settings), protocol=protocol) for name in names)]


def _fewshot(recipe: Recipe, cell: Cell, targets: list[str] | None) -> list[Cell]:
    """One run; where the user's options have some that only a test knows of, first one without these, which trains."""
    rest = {key: value for key, value in cell.user_opts.items() if key not in cell.for_the_test}
    if not cell.for_the_test or cell.train_on or cell.shots is None:
        return [cell.train_on, cell] if cell.train_on else [cell]
    opts = {key: value for key, value in cell.opts.items() if key not in cell.for_the_test}
    trained = replace(cell, opts=opts, user_opts=rest)
    return [trained, _of_trained(cell, trained)]


def _continual(recipe: Recipe, cell: Cell, targets: list[str] | None) -> list[Cell]:
    """One run over all targets; another that forgets at each, for a recipe that says so; first what they test."""
    usual = list(targets_of("continual", cell.dataset))
    targets = list(targets or usual)
    if wrong := [name for name in targets if plain(name) != plain(cell.dataset) or ":" not in name]:
        raise RecipeError(f"--protocol continual tests {cell.dataset} under corruptions one after the other, written "
                          f"{plain(cell.dataset)}:NAME:SEVERITY; --targets has {wrong[0]}.")
    tag = "@continual" + ("" if targets == usual else f"_{sha256(' '.join(targets).encode()).hexdigest()[:8]}")
    trained = cell if recipe.table["shots"] else None
    found = [trained] if trained else []
    for reset in recipe.protocol("continual").get("reset", [False]):
        opts = {**cell.opts, **corrupted(targets), **({"TEST.RESET": "True"} if reset else {})}
        found.append(_of_trained(_unpublished(cell, protocol="continual", tag=f"{tag}_reset" if reset else tag,
                                              opts=opts), trained))
    return found


def _incremental(recipe: Recipe, cell: Cell, tasks: int) -> list[Cell]:
    """Training on all classes at once, then on tasks: CoOp, which does nothing against forgetting, and the method."""
    recipe.protocol("incremental")                              # refuses a method that has no answer here
    if TASKS in cell.user_opts:
        raise RecipeError(f"The number of tasks is --tasks {cell.user_opts[TASKS]}, not an option {TASKS}.")
    staged = _in_tasks(cell, tasks)
    if cell.trainer == ZEROSHOT:
        return [staged]
    if cell.trainer == "CoOp" or not is_ours(cell.config_file):
        return [cell, staged]
    opts = {key: value for key, value in cell.user_opts.items() if not key.startswith(TRAINING_ONLY)}
    return [cell, _in_tasks(load_recipe("coop").cell(cell.dataset, cell.shots, cell.seed, opts, cell.config, cell.own),
                            tasks), staged]


def _in_tasks(cell: Cell, tasks: int) -> Cell:
    return _unpublished(cell, protocol="incremental", tag=f"{IN_TASKS}{tasks}", opts={**cell.opts, TASKS: str(tasks)})


def _starting_from(recipe: Recipe, source: Cell, targets: list[str] | None) -> list[Cell]:
    """The source's run, and one on each other target that starts from it.

    Source: MVLPT (Shen et al., WACV 2024), whose matrix has every pair of datasets.
    """
    if not recipe.table["shots"]:
        raise RecipeError(f"{recipe.trainer} learns nothing that another run could start from, as --protocol matrix "
                          "asks. Name a recipe that trains.")
    found = [source]
    for name in targets or ():
        if name != source.dataset:
            cell = recipe.cell(name, source.shots, source.seed, source.user_opts, str(source.config_file))
            found.append(_unpublished(cell, protocol="matrix", tag=f"{MATRIX}{source.dataset}", start_from=source))
    return found


def _without_each(recipe: Recipe, cell: Cell, targets: list[str] | None) -> list[Cell]:
    """One run for each domain that is left out, its epoch chosen on images of the others unless options say otherwise.

    Source: DomainBed (Gulrajani and Lopez-Paz, ICLR 2021). Its choice on the left-out domain takes the last epoch.
    """
    domains = domains_of(cell.dataset)
    if len(domains) < 2:
        raise RecipeError(f"--protocol lodo leaves out one domain after the other, and {cell.dataset} has no domains. "
                          "Those with domains: pacs, vlcs, office_home, terra_incognita, digits_dg, shapes_domains.")
    if unknown := [name for name in targets or () if name not in domains]:
        raise RecipeError(f"{cell.dataset} has no domain {unknown[0]!r}. {nearest(unknown[0], domains)}")
    given = {**recipe.protocol("lodo").get("opts", {}), **cell.user_opts}
    final = "last_step" if given.get(SELECT_ON) == "target" else "best_val"
    found = []
    for name in targets or domains:
        sources = tuple(other for other in domains if other != name)
        opts = {**cell.opts, FINAL: final, **given, SOURCES: str(sources), LEFT_OUT: str((name,))}
        found.append(_unpublished(cell, protocol="lodo", tag=f"{LODO}{name}", opts=opts))
    return found


def zeroshot(cell: Cell) -> Cell:
    """The zero-shot run that goes with a cell of any protocol: over the same classes."""
    zero = cell if cell.trainer == ZEROSHOT else zeroshot_cell(cell)
    if TASKS in cell.opts:
        return _in_tasks(zero, int(cell.opts[TASKS]))
    if ATTACK in cell.opts and zero is not cell:
        return replace(zero, tag=attack_tag(cell.opts[ATTACK]), opts={**zero.opts, ATTACK: cell.opts[ATTACK]})
    if cell.tag.startswith("@continual") and zero is not cell:
        kinds = {CORRUPTIONS: cell.opts[CORRUPTIONS]} if CORRUPTIONS in cell.opts else {}
        return replace(zero, tag=cell.tag.removesuffix("_reset"), opts={**zero.opts, **kinds})
    if cell.tag.startswith(LODO) and zero is not cell:
        return replace(zero, tag=cell.tag, protocol="lodo",
                       opts={**zero.opts, **{key: cell.opts[key] for key in (SOURCES, LEFT_OUT)}})
    halved = zero is not cell and cell.tag and cell.classes
    return _half(load_recipe("zeroshot"), zero, cell.classes) if halved else zero


def _robust(recipe: Recipe, cell: Cell, targets: list[str] | None) -> list[Cell]:
    """The runs of cross, each followed by one that only tests the same weights under each attack."""
    attacks = [cell.user_opts[ATTACK]] if ATTACK in cell.user_opts else ATTACKS
    options = {key: value for key, value in cell.user_opts.items() if key != ATTACK}
    cell, found = recipe.cell(cell.dataset, cell.shots, cell.seed, options, str(cell.config_file), cell.own), []
    for one in _transfer(recipe, cell, "robust", targets):
        trained = one.train_on or (one if one.shots is not None else None)
        found.append(one)
        for attack in attacks:
            made = _unpublished(one, tag=one.tag + attack_tag(attack), opts={**one.opts, ATTACK: attack})
            found.append(_of_trained(made, trained))
    return found


def attack_tag(attack: str) -> str:
    """What an attack adds to the name of a run that is tested under it."""
    return "@under_" + re.sub("[^a-zA-Z0-9.=-]+", "-", str(attack))


def _halves(recipe: Recipe, cell: Cell, targets: list[str] | None) -> list[Cell]:
    base, new = (_half(recipe, cell, half) for half in HALVES)
    return [base, new if cell.trainer == ZEROSHOT else _of_trained(new, base)]


def _half(recipe: Recipe, cell: Cell, half: str) -> Cell:
    settings = recipe.protocol("base2new")
    cell = _with(cell, settings, f"@{half}", cell.dataset, HALVES.index(half))
    return replace(cell, protocol="base2new", opts={**cell.opts, CLASSES: half})


def _variants(recipe: Recipe, cell: Cell, targets: list[str] | None) -> list[Cell]:
    """The recipe's variants of a cell, in its order; each is the same method with a few options more."""
    settings, found = recipe.protocol("ablation"), []
    if not recipe.variants:
        raise RecipeError(f"The recipe {recipe.name} names no variants for an ablation (protocols: ablation: variants: "
                          "in its yaml). Options KEY VALUE make one too: tools/table.py has a line for each.")
    if twice := sorted({key for opts in recipe.variants.values() for key in opts} & set(cell.user_opts)):
        raise RecipeError(f"{twice[0]} is what the ablation of {recipe.name} changes; leave it out.")
    published = settings.get("published", {}).get(cell.dataset) or [None] * len(recipe.variants)
    for (name, opts), value in zip(recipe.variants.items(), published, strict=True):
        made = recipe.cell(cell.dataset, cell.shots, cell.seed, {**opts, **cell.user_opts}, str(cell.config_file),
                           cell.own)
        made = replace(made, protocol="ablation", variant=name, variant_opts=opts)
        if value is not None and not cell.options and cell.shots == 16 and cell.config == "vit_b16":
            made = replace(made, published=value, published_from=settings.get("published_from", ""))
        found += [made.train_on, made] if made.train_on else [made]
    return found


def _target(recipe: Recipe, source: Cell, name: str, settings: dict) -> Cell:
    """A dataset that the source's prompts are tested on; a row of the recipe that says so is taken as it is."""
    if not recipe.table["shots"]:
        return recipe.cell(name, None, source.seed, source.user_opts, str(source.config_file))
    if not source.tag and not source.own and recipe.row(name).get("train_on") == source.dataset:
        return recipe.cell(name, source.shots, source.seed, source.user_opts, str(source.config_file))
    recipe.row(name)                                            # refused here if there is no such dataset
    cell = _unpublished(source, dataset=name, tag=f"@from_{source.dataset}", own=(),
                        opts={**source.opts, **corrupted([name] if ":" in name else [])})
    return _with(_of_trained(cell, source), settings, cell.tag, name)


def _with(cell: Cell, settings: dict, tag: str, dataset: str, column: int | None = None) -> Cell:
    """The cell under the protocol's settings, with the value published for it (at 16 shots, on the paper's backbone).

    Args:
        column: of the published pair; None where it is one value.
    """
    published, source = settings.get("published", {}).get(dataset), settings.get("published_from", "")
    if published is None and column is None and not settings.get("opts"):
        published, source = cell.published, cell.published_from
    elif published is None or cell.options or cell.shots not in (None, 16) or cell.config != "vit_b16":
        published, source = None, ""
    elif column is not None:
        published = published[column]
    return replace(cell, tag=tag, published=published, published_from=source,
                   opts={**cell.opts, **settings.get("opts", {}), **cell.user_opts})
