"""Mean and spread over the seeds of one experiment, read from log.txt files: the flags and the output of CoOp's tool.

It reads the logs of CoOp, Dassl.pytorch and what grew from them, and our own. Where there is a results.json,
tools/table.py says more. What this tool has to add to the original's words, it says on stderr.

Source: KaiyangZhou/CoOp, parse_test_res.py (flags, output, population std, 1.96 * std / sqrt(n)), COOP.md (examples).
"""
from __future__ import annotations

import argparse
import os
import re
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from dassl.errors import UserError  # noqa: E402
from tools import command  # noqa: E402

TRAINED = ("Finish training", "Finished training")      # of Dassl, and of Dassl before 0.4
TESTED = ("=> result",)


def value_in(log: str, keyword: str, signals: tuple[str, ...]) -> float | None:
    """The last "* keyword: 93.1%" below a line that is one of `signals`; None where there is none.

    Raises:
        UserError: the keyword is not a regular expression.
    """
    lines = log.splitlines()
    start = next((i for i, line in enumerate(lines) if line.strip() in signals), len(lines))
    try:
        found = re.findall(rf"\* {keyword}: ([\.\deE+-]+)%", "\n".join(lines[start:]))
    except re.error as error:
        raise UserError(f"--keyword is a name such as accuracy or macro_f1; {keyword!r} cannot be searched for: "
                           f"{error}.") from error
    return float(found[-1]) if found else None


def parse(directory: str, keyword: str, signals: tuple[str, ...], with_ci95: bool) -> float:
    """Print what CoOp's tool prints for one experiment; returns the mean over its seeds.

    Args:
        directory: holds a folder with a log.txt per seed; or is such a folder itself.
    Raises:
        UserError: no log has a result.
    """
    print(f"Parsing files in {directory}")
    runs = [directory] if os.path.isfile(os.path.join(directory, "log.txt")) else folders_in(directory)
    values, silent = [], []
    for run in runs:
        path, value = newest_result(run, keyword, signals)
        if value is None:
            silent.append(path)
        else:
            values.append(value)
            print(f"file: {path}. {keyword}: {value:.2f}%. ")
    if not values:
        raise UserError(why_nothing(directory, [path for path in silent if path not in runs], keyword, signals))
    for path in silent:
        print(f"No {'log.txt' if path in runs else keyword} in {path}; it is left out.", file=sys.stderr)
    spread = statistics.pstdev(values) * (1.96 / len(values) ** 0.5 if with_ci95 else 1)
    mean = statistics.fmean(values)
    print(f"===\nSummary of directory: {directory}\n* {keyword}: {mean:.2f}% +- {spread:.2f}%\n===")
    return mean


def folders_in(directory: str) -> list[str]:
    """Its folders but hidden ones, named as the caller named it."""
    places = [os.path.join(directory, name) for name in sorted(os.listdir(directory)) if not name.startswith(".")]
    return [place for place in places if os.path.isdir(place)]


def newest_result(run: str, keyword: str, signals: tuple[str, ...]) -> tuple[str, float | None]:
    """The newest log of a seed that has a result, and the result; else the oldest log, or the folder, and None.

    A run that resumes after an interruption, or is repeated in its folder, has a further log, log.txt-<time>.
    """
    logs = [os.path.join(run, path.name) for path in sorted(Path(run).glob("log.txt*"))]
    values = {log: value_in(Path(log).read_text(encoding="utf-8", errors="replace"), keyword, signals) for log in logs}
    ended = [log for log in logs if values[log] is not None]
    if not ended:
        return (logs or [run])[0], None
    if len(ended) > 1 or ended[-1] != logs[-1]:
        newest = os.path.basename(ended[-1])
        print(f"{run} has {len(logs)} logs; {newest} is the newest with a result.", file=sys.stderr)
    return ended[-1], values[ended[-1]]


def why_nothing(directory: str, logs: list[str], keyword: str, signals: tuple[str, ...]) -> str:
    where = f"Nothing found in {directory}: "
    if not logs:
        inner = next((path.parents[1] for depth in (2, 3, 4, 5)
                      for path in sorted(Path(directory).glob("*/" * depth + "log.txt"))), None)
        return where + "no folder in it has a log.txt." + (f" Those in {inner} have: name that one." if inner else "")
    text = Path(logs[0]).read_text(encoding="utf-8", errors="replace")
    if signals == TRAINED and value_in(text, keyword, TESTED) is not None:
        return where + f"{logs[0]} is the log of a test without training. Add --test-log."
    if known := sorted(set(re.findall(r"^\* (\w+): [\d.]+%", text, re.M))):
        return where + f"{logs[0]} has no {keyword}, but {', '.join(known)}: name one with --keyword."
    return where + f"{logs[0]} has no result; the run did not come to its end, or it was not tested (TEST.NO_TEST)."


def parser() -> argparse.ArgumentParser:
    p = command.parser("parse_test_res", __doc__.splitlines()[0], allow_abbrev=True)
    p.add_argument("directory", help="folder with one folder per seed, each of which has a log.txt")
    p.add_argument("--ci95", action="store_true", help="95 %% confidence interval instead of the standard deviation")
    p.add_argument("--test-log", action="store_true",
                   help="the logs are of tests only (--eval-only), where nothing was trained")
    p.add_argument("--multi-exp", action="store_true", help="the folder holds several experiments")
    p.add_argument("--keyword", default="accuracy", help="which result: accuracy, error, macro_f1 (default: accuracy)")
    return p


def parse_all(args: argparse.Namespace) -> None:
    """Every experiment asked for; UserError where nothing was found."""
    if not os.path.isdir(args.directory):
        raise UserError(f"There is no folder {args.directory}. Name the folder that holds the seeds' folders.")
    folders = folders_in(args.directory) if args.multi_exp else [args.directory]
    signals = TESTED if args.test_log else TRAINED
    means = [parse(folder, args.keyword, signals, args.ci95) for folder in folders]
    if not means:
        raise UserError(f"There is no folder of an experiment in {args.directory}.")
    if args.multi_exp:
        print(f"Average performance\n* {args.keyword}: {statistics.fmean(means):.2f}%")


main = command.entry(parser, parse_all)

if __name__ == "__main__":
    sys.exit(main())
