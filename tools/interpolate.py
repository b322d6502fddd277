"""Test a run's towers at shares between those that training started from and those it ended with: WiSE-FT's curve.

Writes interpolation.json, interpolation.csv and plots/interpolation.png into the run folder, and prints the table.
"""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tools import command  # noqa: E402

NAME, MEAN = "interpolation", "mean of targets"
NOTE = """accuracy on the {split} split, percent; share 0: what training started from, 1: what it ended with.
Choose a share in advance (the paper: 0.5) or on --split val; the best row of a test is chosen on test images."""


def parser() -> argparse.ArgumentParser:
    p = command.parser("interpolate", __doc__)
    p.add_argument("run", type=Path, metavar="RUN", help="folder of a finished run that fine-tuned towers")
    p.add_argument("--targets", nargs="*", default=(), metavar="DATASET",
                   help="shifted datasets of the same classes, as configs/datasets names them; digits:fog:5 corrupts")
    p.add_argument("--shares", nargs="+", type=float, metavar="SHARE",
                   help="of the fine-tuned weights, 0 to 1 (default: 0, 0.1 ... 1)")
    p.add_argument("--split", choices=("test", "val"), default="test", help="which images (default: test)")
    p.add_argument("--format", choices=("png", "svg", "pdf"), default="png", help="of the figure (default: png)")
    p.add_argument("--style", choices=("light", "dark"), default="light", help="of the figure (default: light)")
    command.add_run_flags(p)
    return p


def rows_of(found: dict) -> tuple[list[str], list[list[float]]]:
    """Head and rows of the table: share, accuracy on each dataset and, for several targets, their mean."""
    columns = dict(found["accuracy"])
    if len(columns) > 2:
        targets = list(columns.values())[1:]
        columns[MEAN] = [sum(values) / len(targets) for values in zip(*targets, strict=True)]
    return ["share", *columns], [list(row) for row in zip(found["shares"], *columns.values(), strict=True)]


def main(args: argparse.Namespace) -> None:
    from tabulate import tabulate

    from dassl.files.whole import write_whole
    from dassl.utils.tools import write_json
    from tools.evaluating.interpolating import SHARES, curve
    from tools.plotting.interpolation import draw
    from tools.plotting.style import THEMES, write
    from tools.runs.run import Run

    run = Run(args.run, args.epoch, args.root, args.plugin)
    found = curve(run, args.targets, args.shares or SHARES, args.split)
    head, rows = rows_of(found)
    write_json(found, str(run.folder / f"{NAME}.json"))
    write_whole(run.folder / f"{NAME}.csv", "".join(",".join(map(str, row)) + "\n" for row in (head, *rows)))
    path = run.folder / "plots" / f"{NAME}{'-dark' * (args.style == 'dark')}.{args.format}"
    write(lambda theme: draw(found, run, theme), path, THEMES[args.style])
    print(tabulate(rows, head, floatfmt=".1f"), NOTE.format(split=args.split), path, sep="\n")


cli = command.entry(parser, main, of_others=True)


if __name__ == "__main__":
    sys.exit(cli())
