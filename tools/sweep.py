"""Run the cells of a recipe that are not finished, each as a plain tools/train.py would, and end with the table.

A cell is finished when its results.json says so and inputs.json next to it names the settings that would be used now;
a folder alone proves nothing. Options that can change a result are part of the folder's name, so no result replaces one
of other options. Imports nothing heavy: a finished sweep shows its table at once.
For programs: `plan(args, options)` -> cells, `outline(planned, todo, ...)` -> the plan as text; exit codes as `main`.
"""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from dassl import stop  # noqa: E402
from tools import command  # noqa: E402
from tools.checkout import default_folder  # noqa: E402
from tools.command import number  # noqa: E402
from tools.runs import protocols  # noqa: E402
from tools.runs.cell import RecipeError  # noqa: E402
from tools.sweeping import cells, cluster  # noqa: E402
from tools.sweeping.conductor import Conductor  # noqa: E402
from tools.sweeping.estimate import Times  # noqa: E402
from tools.sweeping.outcome import report  # noqa: E402
from tools.sweeping.plan import check_settings, other_settings, outline, plan, rows, split_options, to_do  # noqa: E402
from tools.sweeping.slots import slots  # noqa: E402
from tools.tables.select import render  # noqa: E402

__all__ = ["main", "outline", "parser", "plan", "rows", "split_options"]


def parser() -> argparse.ArgumentParser:
    p = command.parser("sweep", __doc__.splitlines()[0], usage="%(prog)s --recipe NAME (--datasets NAME ... | "
                       "--dataset-dir PATH) [options] [KEY VALUE ...]")
    p.add_argument("--recipe", nargs="+", required=True, help="names in configs/recipes, or paths of yaml files")
    p.add_argument("--datasets", nargs="+", default=[],
                   help='file names of configs/datasets, or "all"; NAME:CORRUPTION:SEVERITY changes the test images, '
                        "A+B trains on both together")
    command.add_own_images(p)
    p.add_argument("--protocol", choices=protocols.PROTOCOLS, default="fewshot",
                   help="base2new: train on half of the classes, test on both halves; cross, dg: train on the "
                        "datasets, test on the targets; ood: targets are corruptions, such as digits:fog:5; continual: "
                        "all of them in one test; robust: as cross, also under an attack (TEST.ATTACK); "
                        "incremental: classes arrive in --tasks; lodo: each domain left out of training, then tested; "
                        "matrix: trained on each dataset, then on each target starting from it; ablation: every "
                        "variant that the recipe names (default: fewshot)")
    p.add_argument("--targets", nargs="+",
                   help="what cross, dg, robust, ood and continual test on (default: those of the papers); which "
                        "domains lodo leaves out (default: each)")
    p.add_argument("--tasks", type=number(2), metavar="N",
                   help="groups of classes that incremental trains one after the other (default: 5)")
    p.add_argument("--shots", nargs="+", type=_shots, metavar="N|full",
                   help="training images per class, or full for all of them (default: all numbers of the recipe; lodo: "
                        "full, else a number for each class and domain)")
    p.add_argument("--seeds", nargs="+", type=number(0), help="default: $SEEDS, else the recipe's")
    p.add_argument("--config", help="another trainer yaml than the row's, e.g. vit_b16_deep, or a path")
    command.add_code_of_others(p.add_argument_group(
        "other people's code", "The runs of a plugin's trainer get these flags; those of the checkout's trainers do "
        "not, except with --replace."))
    command.add_places(p)
    p.add_argument("--jobs", type=_jobs, metavar="N|auto",
                   help="runs side by side; auto (default): as many as the CPU cores or GPUs at hand carry")
    p.add_argument("--jobs-per-gpu", type=_jobs, metavar="N",
                   help="most of them on one GPU (default: 4 of the embedded model, else 1)")
    p.add_argument("--fresh-processes", action="store_true",
                   help="a fresh process for every run, instead of forks of one that has imported everything")
    p.add_argument("--force", action="store_true", help="run again what is finished")
    p.add_argument("--dry-run", action="store_true", help="print the commands and run nothing")
    cluster.add_flags(p)
    return p


def _jobs(text: str) -> int | None:
    """A number of jobs; None for auto."""
    if text == "auto":
        return None
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be auto or a number of at least 1, got {text!r}")
    return int(text)


def _shots(text: str) -> int:
    """A number of images per class; 0 for all of them."""
    return 0 if text == "full" else number(1)(text)


def main(argv: list[str] | None = None) -> int:
    """The command line.

    Returns:
        0 when every run has finished; 2 for a user error, or if all failures are such; 1 if a run failed otherwise or
        is being made by another process; 130 when interrupted, 128 + its number when ended by a signal.
    """
    return command.ended(lambda: sweep(sys.argv[1:] if argv is None else argv), "Interrupted before the first run.")


def sweep(words: list[str]) -> int:
    """Plan, make what is missing, and show the table; returns as `main`."""
    flags, options = split_options(words)
    args = parser().parse_args(flags)
    cluster.check(args)
    data, output = (given or default_folder(name) for given, name in ((args.data, "data"), (args.output, "output")))
    planned = [cells.Planned(cell, data, output) for cell in plan(args, options)]
    todo = to_do(planned, args.force)
    places = None if args.launcher else slots([p.cell for p in todo], args.jobs, args.jobs_per_gpu)
    if not args.dry_run and options and todo:
        check_settings(todo)
    times = Times.below(output, planned if todo else [])
    outlined = outline(planned, todo, places, times, output)
    if args.dry_run:
        print(outlined, file=sys.stderr, flush=True)
        print("\n".join(p.command_line() for p in planned))
        return 0
    if not args.force and (other := [p for p in planned if p.state == "other"]):
        raise RecipeError(other_settings(other))
    print(outlined, flush=True)
    with stop.on_signals():
        outcome = cluster.run(args, planned, todo) if args.launcher else Conductor(
            todo, [p for p in planned if p not in todo], places, times, args.force, args.fresh_processes).run()
    if outcome is None:                             # the runs continue elsewhere
        return 0
    if outcome.stopped_by:
        finished = sum(p.record is not None for p in planned)
        print(f"Interrupted; {finished} of {len(planned)} runs are finished. The same command resumes from here.")
        return outcome.stopped_by
    if any(p.record for p in planned):
        print("\n" * bool(todo) + render(rows(planned)), flush=True)
    if said := report(outcome):
        print(f"\n{said}", file=sys.stderr if outcome.code == 2 else sys.stdout)
    return outcome.code


if __name__ == "__main__":
    sys.exit(main())
