"""From the words of a sweep's command to its cells, and what is said of them before the first run."""
from __future__ import annotations

import argparse
import os
import re
from dataclasses import replace
from pathlib import Path

from dassl.errors import UserError
from tools import command, train
from tools.checkout import default_folder
from tools.runs import inputs, protocols
from tools.runs.published import shipped
from tools.runs.recipe import ZEROSHOT, Cell, Recipe, RecipeError, is_ours, load_recipe
from tools.sweeping import cells
from tools.sweeping.estimate import Times, plan_table, side_by_side
from tools.sweeping.overview import duration
from tools.sweeping.slots import Slots
from tools.tables.listing import short
from tools.tables.rows import Row, in_order, row_of

_KEY = re.compile(r"[A-Z][A-Z0-9_]*(\.[A-Z0-9_]+)+|USE_CUDA|VERBOSE")


def split_options(words: list[str], pairs_allowed: bool = False) -> tuple[list[str], dict[str, str]]:
    """Separate KEY VALUE pairs, wherever they stand, from the flags.

    Args:
        pairs_allowed: KEY=VALUE in one word is an argument of a flag.
    Raises:
        RecipeError: a key has no value; KEY=VALUE in one word.
    """
    flags, options, words = [], {}, list(words)
    while words:
        word = words.pop(0)
        if word == "--new-key":                                  # its KEY VALUE is not an option of the runs
            flags += [word, *words[:2]]
            del words[:2]
        elif not pairs_allowed and (hint := command.pair_hint(word)):
            raise RecipeError(hint)
        elif not _KEY.fullmatch(word):
            flags.append(word)
        elif not words or words[0].startswith("--"):
            raise RecipeError(f"Options come in pairs KEY VALUE; {word} has no value.")
        else:
            options[word] = words.pop(0)
    return flags, options


def plan(args: argparse.Namespace, options: dict[str, str]) -> list[Cell]:
    """Cells in the order they run; the zero-shot ones first, for they show at once that data and weights are there."""
    wanted: list[Cell] = []
    for recipe in map(load_recipe, args.recipe):
        trains = recipe.table["shots"]                       # without shots nothing is trained
        usual = [None] if args.protocol == "lodo" else trains
        for shots in (n or None for n in (args.shots or usual if trains else [None])):
            for dataset, own in _datasets(args, recipe, shots):
                for seed in [1] if recipe.trainer == ZEROSHOT else _seeds(args, recipe):
                    cell = recipe.cell(dataset, shots, seed, options, args.config, own)
                    targets = args.targets or (args.datasets if args.protocol == "matrix" else None)
                    wanted += protocols.expand(recipe, cell, args.protocol, targets, args.tasks)
    first = [protocols.zeroshot(cell) for cell in wanted]
    return _with_code(_with_seeds(list({cell.folder: cell for cell in [*first, *wanted]}.values())), args)


def _with_seeds(planned: list[Cell]) -> list[Cell]:
    """Each says which seeds were asked for with it, so that a table knows later which of them are missing."""
    seeds: dict[tuple, list[int]] = {}
    for cell in planned:
        seeds.setdefault(cell.kind, []).append(cell.seed)
    return [replace(cell, seeds=tuple(sorted(seeds[cell.kind]))) for cell in planned]


def _with_code(planned: list[Cell], args: argparse.Namespace) -> list[Cell]:
    """The flags that name code of others, given to the runs that are theirs.

    Runs of the checkout's trainers stay what they are without these flags, results that exist already among them.
    """
    flags = [word for plugin in args.plugin for word in ("--plugin", plugin)]
    flags += ["--extend-cfg", args.extend_cfg] if args.extend_cfg else []
    flags += [word for pair in args.new_key for word in ("--new-key", *pair)]
    flags += [f"--{name.replace('_', '-')}" for name in ("replace", "allow_cpu_shim") if getattr(args, name)]
    if not flags:
        return planned
    ours = {recipe.trainer for recipe in shipped()}
    found = [replace(cell, code=tuple(flags)) if args.replace or cell.trainer not in ours
             or not is_ours(cell.config_file) else cell for cell in planned]
    if not any(cell.code for cell in found):
        raise RecipeError(f"{flags[0]} brings code of others, and every run of this sweep is of a trainer of the "
                          "checkout. Name a recipe for the plugin's trainer by its path: --recipe mine.yaml, a yaml of "
                          "{trainer: NAME, config: PATH.yaml, seeds: [1, 2, 3], shots: [16], datasets: {}}. Or add "
                          "--replace, which gives every run these flags: for a plugin with one of our names, or with a "
                          "dataset.")
    return found


def _datasets(args: argparse.Namespace, recipe: Recipe, shots: int | None) -> list[tuple[str, tuple[str, ...]]]:
    """Names, each with the flags that name it where it is a folder of the user's own."""
    if bool(args.datasets) == bool(args.dataset_dir):
        raise RecipeError("Name what to run on: --datasets NAME ..., or --dataset-dir PATH for images of your own.")
    if args.dataset_dir:
        name = inputs.own_name(args.output or default_folder("output"), args.dataset_dir)
        return [(name, inputs.own_flags(args.dataset_dir, args.template, args.classnames))]
    if "all" in args.datasets and not recipe.main_datasets(shots):
        raise RecipeError(f"The recipe {recipe.name} lists no datasets" + (f" with {shots} shots" if shots else "") +
                          ", so --datasets all is none. Name them.")
    return [(d, ()) for name in args.datasets for d in (recipe.main_datasets(shots) if name == "all" else [name])]


def _seeds(args: argparse.Namespace, recipe: Recipe) -> list[int]:
    if args.seeds:
        return args.seeds
    words = os.environ.get("SEEDS", "").replace(",", " ").split()
    if not all(re.fullmatch(r"\d+", word) for word in words):
        raise RecipeError(f'SEEDS takes whole numbers, e.g. SEEDS="1 2 3", got {os.environ["SEEDS"]!r}.')
    return [int(word) for word in words] or recipe.table["seeds"]


def to_do(planned: list[cells.Planned], force: bool) -> list[cells.Planned]:
    """What is not finished, and what tests or starts from a run that is rerun."""
    todo, rerun = [], set()
    for p in planned:
        if force or p.state != "finished" or p.before in rerun:
            todo.append(p)
            rerun |= {p.cell.folder} if p.state != "test" else set()
    return todo


def outline(planned: list[cells.Planned], todo: list[cells.Planned], places: Slots | None, times: Times,
            output: str) -> str:
    """What will be run, and here (`places`) how many at a time and about how long it takes."""
    done = len(planned) - len(todo)
    if not todo:
        return f"All {done} results exist already; --force runs again.\n"
    count = f"{len(todo)} run{'s' * (len(todo) > 1)} to do" + (f", {done} finished before" if done else "")
    how = f"; {places.words}. Time: {_estimate(todo, places, times)}." if places else "; each is a job."
    return f"{plan_table(planned, todo)}\n\n{count}{how}\nResults go to {short(Path(output))}."


def _estimate(todo: list[cells.Planned], places: Slots, times: Times) -> str:
    known = [seconds for p in todo if (seconds := times.of(p.cell)) is not None]
    if not known:
        return "known after the first runs"
    rest = f" for {len(known)} of them, the rest not known yet" if len(known) < len(todo) else ""
    return f"about {duration(side_by_side(known, len(places.devices)))}{rest}"


def rows(planned: list[cells.Planned]) -> list[Row]:
    """A table row per folder of seeds."""
    found: dict[Path, Row] = {}
    for p in planned:
        cell, folder = p.cell, p.folder.parent
        row = found.setdefault(folder, row_of(cell, folder))
        row.cell, row.published, row.published_from = cell, cell.published, cell.published_from
        row.add(cell.seed, p.record, cell.seeds)
    return in_order(list(found.values()))


def other_settings(other: list[cells.Planned]) -> str:
    """The message for finished runs whose settings were not those of this command."""
    changes = dict.fromkeys(change for p in other for change in p.changes)
    which = f"{short(other[0].folder)}{f' and {len(other) - 1} more' if other[1:] else ''}"
    return "\n".join([f"{'Finished runs' if other[1:] else 'A finished run'} used different settings: {which}",
                      *(f"  {change}" for change in changes),
                      "--force runs them again in the same folders; another OUTPUT keeps both."])


def check_settings(planned: list[cells.Planned]) -> None:
    """Look at the options before the first run, each trainer and yaml once. Imports PyTorch.

    Raises:
        RecipeError: a run cannot start with them.
    """
    from dassl.config.checks import check_values
    from dassl.engine import TRAINER_REGISTRY

    kinds = {(p.cell.trainer, p.cell.config, p.cell.code, tuple(p.cell.opts.items())): p for p in reversed(planned)}
    for p in reversed(kinds.values()):
        try:
            cfg = train.setup_cfg(train.parser().parse_args(p.arguments))
            check_values(cfg)
            method = TRAINER_REGISTRY.get(cfg.TRAINER.NAME)
            method.check_cfg(object.__new__(method), cfg)       # it looks at the config alone
        except UserError as error:
            raise RecipeError(f"{p.name} cannot run:\n  {error}") from error
