"""What it costs to reproduce each paper's full table on several GPUs, from step times that were measured."""
from __future__ import annotations

import argparse
import heapq
import json
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tools.recipes import RecipeError, load_recipe  # noqa: E402

RECIPES = ("zeroshot", "coop", "coop_rn50", "cocoop", "vpt", "dapt", "vp", "ar", "attrvr", "dvp_cse", "dvp_cls",
           "linear_probe")
STEP_TIMES, DOCUMENT = ROOT / "docs" / "step_times.json", ROOT / "docs" / "scaling.md"
TFLOPS = 40.0                       # sustained, of the projection in the document
ALIKE = {"DVPcls": "DVPcse"}            # the same step, but for what little is learned
BEGIN, END = "<!-- {}: python tools/scaling.py --write -->", "<!-- end of {} -->"

EXAMPLES = """
examples:
  python tools/scaling.py                                              from the step times of docs/step_times.json
  python tools/bench.py --device cuda --precision fp16 --batch 32 --json mine.json
  python tools/scaling.py --step-times mine.json                       from those of your own machine
  python tools/scaling.py --tflops 80 --recipes dapt dvp_cse           a projection, for a rate that you assume
  python tools/scaling.py --gpus 1 16 256

What is counted, and how: docs/scaling.md.
"""


@dataclass(frozen=True)
class Speed:
    """How fast operations become a result.

    Attributes:
        rate: operations a second. times_floor: how many times as long a step of each trainer takes; "" for any other.
        words: where both come from.
    """

    rate: float
    times_floor: dict[str, float]
    words: str

    def seconds(self, cost) -> float:
        forward = self._times("CoOp-test" if cost.trainer != "ZeroshotCLIP" else "ZeroshotCLIP")
        return (cost.steps * cost.step * self._times(cost.trainer) + cost.passes * cost.image * forward) / self.rate

    def _times(self, trainer: str) -> float:
        known = trainer if trainer in self.times_floor else ALIKE.get(trainer, "")
        return self.times_floor.get(known, self.times_floor[""])


def measured(path: Path) -> Speed:
    """Of a machine, from what tools/bench.py --json wrote there.

    A trainer that was not measured is taken to be as far from its floor as one with the same step (ALIKE), or else as
    the farthest that was.

    Raises:
        RecipeError: no such file, or no such content.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        rate, facts = result["matrix_rate"]["gflops"] * 1e9, result["machine"]
        times: dict[str, list[float]] = {}
        for row in result["rows"]:
            ms = row["ours"]["ms"]
            of_its_floor = (ms["step"] - (ms["data"] or 0)) / row["floor"]["ms"]
            times.setdefault(row["trainer"], []).append(of_its_floor * rate / row["matrix_rate"]["gflops"] / 1e9)
        found = {trainer: sum(values) / len(values) for trainer, values in times.items() if trainer != "DVP-PRM"}
        where = facts["gpu"] or f"{facts['cpu']}, {facts['cores']} cores"
        words = f"{where}, {result['settings']['precision']}: products at {rate / 1e9:,.0f} GFLOP/s, steps at " \
                f"{min(found.values()):.2f} to {max(found.values()):.2f} times their floor"
        return Speed(rate, {**found, "": max(found.values())}, words)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecipeError(f"{path} is no result of `python tools/bench.py --json {path.name}` "
                          f"({type(error).__name__}: {error}).") from error


def assumed(tflops: float) -> Speed:
    return Speed(tflops * 1e12, {"": 1.0}, f"{tflops:g} TFLOP/s sustained over whole steps (an assumption)")


def jobs(name: str, speed: Speed) -> list[tuple[int, float]]:
    """(operations, seconds) of each training of a recipe's full table, the tests of its prompts elsewhere included."""
    from tools.costs import cost

    recipe, found = load_recipe(name), {}
    for cell in recipe.cells():
        if "config" in recipe.row(cell.dataset):            # our own embedded data
            continue
        own = cost(recipe, cell)
        operations, seconds = found.get((cell.train_on or cell).folder, (0, 0.0))
        found[(cell.train_on or cell).folder] = operations + own.operations, seconds + speed.seconds(own)
    return list(found.values())


def together(seconds: list[float], places: int) -> float:
    """Until all have run, the longest first, each on the place that is free first."""
    free = [0.0] * places
    for each in sorted(seconds, reverse=True):
        heapq.heapreplace(free, free[0] + each)
    return max(free)


def table(recipes, speed: Speed, places: list[int]) -> str:
    """GitHub's Markdown, one line a recipe."""
    from tabulate import tabulate

    lines, everything = [], []
    for name in recipes:
        done = jobs(name, speed)
        everything += done
        lines.append([name, len(done), *_numbers(done, places)])
    if len(lines) > 1:
        lines.append(["all", len(everything), *_numbers(everything, places)])
    head = ["recipe", "trainings", "PFLOP", "longest run", *(f"on {n}" for n in places)]
    return tabulate(lines, headers=head, tablefmt="github", disable_numparse=True,
                    colalign=["left", *["right"] * (len(head) - 1)])


def _numbers(done: list[tuple[int, float]], places: list[int]) -> list[str]:
    seconds = [s for _, s in done]
    return [f"{sum(operations for operations, _ in done) / 1e15:,.0f}", span(max(seconds)),
            *(span(together(seconds, n)) for n in places)]


def span(seconds: float) -> str:
    """Two or three digits with a unit: "45 min", "7.5 h", "12 d"."""
    value, unit = next((seconds / size, unit) for size, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
                       if seconds >= 2 * size or unit == "s")
    return f"{value:,.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"


def sections(speed: Speed, projection: Speed, places: list[int], recipes=RECIPES) -> dict[str, str]:
    """The two tables of the document, each with what it rests on."""
    return {"measured": f"{table(recipes, speed, places)}\n\n{speed.words}.",
            "projected": f"{table(recipes, projection, places)}\n\n{projection.words}."}


def inserted(text: str, tables: dict[str, str]) -> str:
    """The document with its tables renewed."""
    for name, content in tables.items():
        begin, end = BEGIN.format(name), END.format(name)
        before, rest = text.split(begin)
        text = f"{before}{begin}\n\n{content}\n\n{end}{rest.split(end)[1]}"
    return text


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="tools/scaling.py", description=__doc__, epilog=EXAMPLES,
                                formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    p.add_argument("--recipes", nargs="+", default=list(RECIPES), metavar="NAME", help="default: all that are counted")
    p.add_argument("--step-times", type=Path, metavar="FILE",
                   help="what tools/bench.py --json wrote (default: docs/step_times.json)")
    p.add_argument("--tflops", type=float, metavar="T",
                   help="project instead: 10^12 operations a second that are sustained over whole steps")
    p.add_argument("--gpus", nargs="+", type=int, default=[1, 8, 64], metavar="N",
                   help="runs at a time, one on each (default: 1 8 64)")
    p.add_argument("--write", action="store_true", help="renew the tables of docs/scaling.md")
    return p


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    try:
        if unknown := [name for name in args.recipes if name not in RECIPES]:
            raise RecipeError(f"The operations of {unknown[0]!r} are not counted; there are {', '.join(RECIPES)}.")
        if min(args.gpus) < 1 or (args.tflops is not None and args.tflops <= 0):
            raise RecipeError("--gpus are 1 or more, and --tflops more than 0.")
        if args.write:
            tables = sections(measured(STEP_TIMES), assumed(TFLOPS), [1, 8, 64])
            DOCUMENT.write_text(inserted(DOCUMENT.read_text(encoding="utf-8"), tables), encoding="utf-8")
            print(f"Renewed {DOCUMENT}")
            return 0
        speed = measured(args.step_times or STEP_TIMES) if args.tflops is None else assumed(args.tflops)
        print(f"{table(args.recipes, speed, args.gpus)}\n\n{speed.words}.")
    except RecipeError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
