"""Search a method's settings for a dataset, on validation images; ends with the best ones as a recipe.

Trials are runs of a sweep: forked, side by side, ended early where their validation accuracy is below the median of
others at the same epoch. The same command resumes, also on other machines that share the study. Test images are never
looked at: test the recipe that it writes with tools/sweep.py.
"""
from __future__ import annotations

import argparse
import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from dassl import stop  # noqa: E402
from tools import command  # noqa: E402
from tools.checkout import default_folder  # noqa: E402
from tools.command import number  # noqa: E402
from tools.runs import inputs, protocols  # noqa: E402
from tools.runs.by_hand import dataset_names  # noqa: E402
from tools.runs.cell import RecipeError  # noqa: E402
from tools.runs.recipe import load_recipe  # noqa: E402
from tools.sweeping.cells import Planned  # noqa: E402
from tools.sweeping.estimate import Times  # noqa: E402
from tools.sweeping.outcome import report  # noqa: E402
from tools.sweeping.plan import split_options  # noqa: E402
from tools.sweeping.slots import slots  # noqa: E402
from tools.tables.listing import short  # noqa: E402
from tools.tuning import elevater, found, space, study  # noqa: E402
from tools.tuning.trials import Search, Trials, base_cell  # noqa: E402


def parser() -> argparse.ArgumentParser:
    p = command.parser("tune", __doc__.splitlines()[0], usage="%(prog)s --recipe NAME (--dataset NAME | "
                       "--dataset-dir PATH) --space KEY=KIND:LOW:HIGH ... [options] [KEY VALUE ...]")
    p.add_argument("--recipe", required=True, help="a name in configs/recipes, or the path of a yaml file")
    p.add_argument("--dataset", help="a file name of configs/datasets, or a folder as --dataset-dir takes it")
    command.add_own_images(p)
    p.add_argument("--space", nargs="+", metavar="KEY=KIND:...",
                   help="what is searched: KEY=log:LOW:HIGH, uniform:LOW:HIGH, int:LOW:HIGH, choice:A,B,C")
    p.add_argument("--protocol", choices=("search", "elevater"), default="search",
                   help="elevater: the rates and weight decays of ELEVATER, coarse to fine, without --space")
    p.add_argument("--trials", type=number(1), default=30, help="of the study, on all machines (default: 30)")
    p.add_argument("--shots", type=lambda text: None if text == "full" else number(1)(text), default=16,
                   metavar="N|full", help="training images per class (default: 16)")
    p.add_argument("--leave-out", metavar="DOMAIN", help="of a dataset of domains: the one that is not trained on")
    p.add_argument("--seed", type=number(0), default=1, help="of the runs and of the search (default: 1)")
    p.add_argument("--config", help="another trainer yaml than the row's")
    p.add_argument("--study", help="its name (default: recipe, dataset and shots)")
    p.add_argument("--storage", metavar="URL", help="of the study, for machines that share no folder, such as "
                   "postgresql://... (default: a journal in the study's folder)")
    command.add_places(p)
    p.add_argument("--jobs", type=number(1), help="trials side by side (default: as many as the machine carries)")
    return p


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns 0; 2 for a user error; 1 where trials failed; 130 when interrupted."""
    words = sys.argv[1:] if argv is None else argv

    def work() -> int:
        flags, options = split_options(words, pairs_allowed=True)
        return search(parser().parse_args(flags), options)

    return command.ended(work, "Interrupted; the same command resumes the study.")


def search(args: argparse.Namespace, options: dict[str, str]) -> int:
    """Run the study to its number of trials, and write what it found."""
    study.need_optuna()
    recipe, ranges = load_recipe(args.recipe), ranges_of(args)
    if clash := [each.key for each in ranges if each.key in options]:
        raise RecipeError(f"{clash[0]} is in --space and among the options. Leave one of them out.")
    cell = base_cell(cell_of(args, recipe, options), bool(recipe.table["shots"]))
    output = Path(args.output or default_folder("output"))
    default = "_".join(filter(None, [recipe.name, cell.dataset, args.leave_out,
                                     f"{cell.shots}shots" if cell.shots else "full",
                                     args.protocol if args.protocol != "search" else ""]))
    name = args.study or default
    folder = output / "tuning" / name
    base = Planned(cell, args.data or default_folder("data"), str(folder / "runs"))
    cfg = space.check(ranges, base.arguments)
    if args.protocol == "elevater":
        cell = replace(cell, opts={**cell.opts, **elevater.schedule(cfg), **options})
        base = Planned(cell, base.root, base.output)
    of = {"recipe": recipe.name, "dataset": cell.dataset, "shots": str(cell.shots or "full"), "config": cell.config,
          "seed": str(cell.seed), "options": " ".join(f"{k}={v}" for k, v in sorted(options.items())) or "none",
          "domain left out": args.leave_out or "none", "search space": " ".join(
              f"{each.key}={each.kind}:{':'.join(each.ends)}" for each in ranges), "protocol": args.protocol}
    kept = study.open_study(name, folder, args.storage, of, args.seed)
    trials = Trials(kept, ranges, base, None if args.protocol == "elevater" else args.trials)
    many = (trials.count or 6) - len(study.counted(kept))
    places = slots([cell] * max(many, 1), args.jobs)
    print(f"Study {name}: {len(study.counted(kept))} trials before; {places.words}. Folder: {short(folder)}",
          flush=True)
    with stop.on_signals():
        outcome = Search(trials, places, Times()).run()
    if words := report(outcome):
        print(words, file=sys.stderr)
    if outcome.stopped_by:
        print("Interrupted; the same command resumes the study.")
        return outcome.stopped_by
    if trials.refused:
        return 2
    seeds, final = recipe.table["seeds"], {}
    if args.protocol == "elevater":
        seeds, final = list(elevater.SEEDS), {**elevater.final(cell.shots), **options}
    print("\n" + found.write(folder, kept, ranges, cell, seeds, final))
    print(f"\nAccuracy in percent on validation images, on which the settings are chosen. Written: "
          f"{', '.join((found.RECIPE, found.CONFIG, found.TABLE, found.FIGURE))}.\nTest them: " + shlex.join([
              "python", "tools/sweep.py", "--recipe", str(short(folder / found.RECIPE)),
              *(["--dataset-dir", args.dataset_dir] if args.dataset_dir else ["--datasets", cell.dataset]),
              "--shots", str(cell.shots or "full"),
              *(["--protocol", "lodo", "--targets", args.leave_out] if args.leave_out else [])]))
    return 0


def ranges_of(args: argparse.Namespace) -> list[space.Range]:
    if args.protocol != "elevater":
        return space.parse(args.space or [])
    if args.space:
        raise RecipeError("--protocol elevater has a search space of its own. Leave --space out.")
    ends = ((elevater.RATE, elevater.rate(0), elevater.rate(5)), (elevater.DECAY, elevater.decay(0),
                                                                  elevater.decay(elevater.STEPS - 1)))
    return [space.Range(key, "log", (low, high)) for key, low, high in ends]


def cell_of(args: argparse.Namespace, recipe, options: dict[str, str]):
    if bool(args.dataset) == bool(args.dataset_dir):
        raise RecipeError("Name what to search on: --dataset NAME, or --dataset-dir PATH for images of your own.")
    if args.dataset and args.dataset not in dataset_names() and os.path.exists(args.dataset):
        args.dataset, args.dataset_dir = None, args.dataset
    own, dataset = (), args.dataset
    if args.dataset_dir:
        own = inputs.own_flags(args.dataset_dir, args.template, args.classnames)
        dataset = inputs.name_of(args.dataset_dir)
    cell = recipe.cell(dataset, args.shots, args.seed, options, args.config, own)
    return protocols.expand(recipe, cell, "lodo", [args.leave_out])[0] if args.leave_out else cell


if __name__ == "__main__":
    sys.exit(main())
