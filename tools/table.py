"""The papers' tables from finished runs, with spread over seeds, what is missing, and the published values.

Runs are found by their results.json, in any folder. Tables:
  shots     methods x shots, a block per dataset, averages
  fewshot   datasets x shots, one per method          base2new  base and new classes and their harmonic mean
  methods   methods x datasets, one per shots         cross     trained once, tested on other datasets
  ablation  variants of one method                    dg        trained once, tested on shifted copies
  lodo      each domain left out of training          matrix    trained from another dataset's prompts
  incremental  classes that arrive in tasks
  runs      every seed, time and folder, a line per method, dataset and number of shots
"""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tools import command  # noqa: E402
from tools.checkout import default_folder  # noqa: E402
from tools.runs.recipe import RecipeError, load_recipe  # noqa: E402
from tools.tables.layouts import LAYOUTS  # noqa: E402
from tools.tables.listing import short  # noqa: E402
from tools.tables.select import RUNS, add_filters, rows_below, write, write_runs  # noqa: E402

FORMATS = {"text": ".txt", "markdown": ".md", "html": ".html", "latex": ".tex", "csv": ".csv", "json": ".json"}
ALIASES = {**{ending[1:]: name for name, ending in FORMATS.items()}, "plain": "text"}


def parser() -> argparse.ArgumentParser:
    p = command.parser("table", __doc__)
    p.add_argument("output", nargs="*", default=[default_folder("output")],
                   help="folders to look in (default: $OUTPUT, else output/ of the checkout)")
    p.add_argument("--table", "--protocol", nargs="+", choices=[*LAYOUTS, RUNS], metavar="NAME",
                   help=f"{', '.join(LAYOUTS)} or {RUNS} (default: all but runs that there are runs for)")
    p.add_argument("--recipe", nargs="+", default=[], metavar="FILE",
                   help="recipes of your own, whose published values and variants count too")
    add_filters(p)
    p.add_argument("--format", choices=list(FORMATS), type=lambda name: ALIASES.get(name, name),
                   help="default: by the name of --output, else text")
    p.add_argument("--long", choices=["csv"], help="a line per run instead of tables, with a column for every fact")
    p.add_argument("--output", dest="file", metavar="FILE", help="write there; the folder is made")
    p.add_argument("--digits", type=command.number(0), default=1, metavar="N",
                   help="behind the point; csv and json are not rounded (default: 1)")
    p.add_argument("--no-published", action="store_true", help="without published values and the differences from them")
    p.add_argument("--standalone", action="store_true", help="LaTeX as a document of its own")
    return p


def show(args: argparse.Namespace) -> None:
    """Print the tables, or write them to --output."""
    args.format = args.long or args.format or _format_of(args.file)
    recipes = tuple(map(load_recipe, args.recipe))
    rows = rows_below(args.output, args, recipes)
    text = write_runs(rows, recipes) if args.long else write(rows, args)
    if not args.file:
        print(text)
        return
    path = Path(args.file)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")
    print(f"Written to {short(path)}.")


def _format_of(file: str | None) -> str:
    """By the ending of a file's name."""
    endings = {ending: name for name, ending in FORMATS.items()}
    if file is None:
        return "text"
    if Path(file).suffix.lower() not in endings:
        raise RecipeError(f"{file} does not say which format: end its name in {', '.join(endings)}, or give --format.")
    return endings[Path(file).suffix.lower()]


main = command.entry(parser, show, "Interrupted.")

if __name__ == "__main__":
    command.script(main)
