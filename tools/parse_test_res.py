"""Mean and spread over the seeds of one experiment, read from log.txt files: the flags and the output of CoOp's tool.

It reads the logs of CoOp, Dassl.pytorch and what grew from them, and our own. Where there is a results.json,
tools/table.py says more. What this tool has to add to the original's words, it says on stderr.

Source: KaiyangZhou/CoOp, parse_test_res.py (flags, output, population std, 1.96 * std / sqrt(n)), COOP.md (examples).
"""
from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tools import command  # noqa: E402

TRAINED = ("Finish training", "Finished training")      # of Dassl, and of Dassl before 0.4
TESTED = ("=> result",)


class NothingFound(Exception):
    """There is no result where one was looked for; the message says the way out."""


def ci95(values: list[float]) -> float:
    """Half the width of the 95 % confidence interval as CoOp computes it, from the population standard deviation."""
    return 1.96 * np.std(values) / np.sqrt(len(values))


def value_in(log: str, keyword: str, signals: tuple[str, ...]) -> float | None:
    """The last "* keyword: 93.1%" below a line that is one of `signals`; None where there is none.

    Raises:
        NothingFound: the keyword is not a regular expression.
    """
    try:
        line_of = re.compile(rf"\* {keyword}: ([\.\deE+-]+)%")
    except re.error as error:
        raise NothingFound(f"--keyword is a name such as accuracy or macro_f1; {keyword!r} cannot be searched for: "
                           f"{error}.") from error
    found, started = None, False
    for line in log.splitlines():
        started = started or line.strip() in signals
        if started and (match := line_of.search(line)):
            found = float(match[1])
    return found


def parse(directory: str, keyword: str, signals: tuple[str, ...], with_ci95: bool) -> float:
    """Print what CoOp's tool prints for one experiment; returns the mean over its seeds.

    Args:
        directory: holds a folder with a log.txt per seed; or is such a folder itself.
    Raises:
        NothingFound: no log has a result.
    """
    print(f"Parsing files in {directory}")
    values, silent = [], []
    logs, without = _logs(directory)
    for own in logs:
        path, value = _newest_result(own, keyword, signals)
        if value is None:
            silent.append(path)
            continue
        values.append(value)
        print(f"file: {path}. {keyword}: {value:.2f}%. ")
    if not values:
        raise NothingFound(_why_nothing(directory, silent, keyword, signals))
    for what, paths in ((f"No {keyword}", silent), ("No log.txt", without)):
        for path in paths:
            print(f"{what} in {path}; it is left out.", file=sys.stderr)
    spread = ci95(values) if with_ci95 else np.std(values)
    print(f"===\nSummary of directory: {directory}\n* {keyword}: {np.mean(values):.2f}% +- {spread:.2f}%\n===")
    return float(np.mean(values))


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns 0, or 2 where nothing was found."""
    args = parser().parse_args(argv)
    signals = TESTED if args.test_log else TRAINED
    try:
        if not os.path.isdir(args.directory):
            raise NothingFound(f"There is no folder {args.directory}. Name the folder that holds the seeds' folders.")
        if not args.multi_exp:
            parse(args.directory, args.keyword, signals, args.ci95)
            return 0
        folders = [os.path.join(args.directory, name) for name in _names(args.directory)]
        folders = [folder for folder in folders if os.path.isdir(folder)]
        means = [parse(folder, args.keyword, signals, args.ci95) for folder in folders]
        if not means:
            raise NothingFound(f"There is no folder of an experiment in {args.directory}.")
    except NothingFound as error:
        print(error, file=sys.stderr)
        return 2
    print(f"Average performance\n* {args.keyword}: {np.mean(means):.2f}%")
    return 0


def parser() -> argparse.ArgumentParser:
    p = command.parser("parse_test_res", __doc__.splitlines()[0], allow_abbrev=True)
    p.add_argument("directory", help="folder with one folder per seed, each of which has a log.txt")
    p.add_argument("--ci95", action="store_true", help="95 %% confidence interval instead of the standard deviation")
    p.add_argument("--test-log", action="store_true",
                   help="the logs are of tests only (--eval-only), where nothing was trained")
    p.add_argument("--multi-exp", action="store_true", help="the folder holds several experiments")
    p.add_argument("--keyword", default="accuracy", help="which result: accuracy, error, macro_f1 (default: accuracy)")
    return p


def _names(directory: str) -> list[str]:
    return sorted(name for name in os.listdir(directory) if not name.startswith("."))


def _logs(directory: str) -> tuple[list[list[str]], list[str]]:
    """The logs of each seed from the oldest, and the folders that have none, named as the caller named the folder."""
    runs = [directory] if os.path.isfile(os.path.join(directory, "log.txt")) else \
        [os.path.join(directory, name) for name in _names(directory)]
    found, without = [], []
    for run in filter(os.path.isdir, runs):
        logs = sorted(path.name for path in Path(run).glob("log.txt*"))
        if logs:
            found.append([os.path.join(run, name) for name in logs])
        else:
            without.append(run)
    return found, without


def _newest_result(logs: list[str], keyword: str, signals: tuple[str, ...]) -> tuple[str, float | None]:
    """The newest log of a seed that has a result, and the result; the oldest log and None where none has.

    A run that goes on after an interruption, or is repeated in its folder, has a further log, log.txt-<time>.
    """
    values = {log: value_in(Path(log).read_text(encoding="utf-8", errors="replace"), keyword, signals) for log in logs}
    ended = [log for log in logs if values[log] is not None]
    if not ended:
        return logs[0], None
    if len(ended) > 1 or ended[-1] != logs[-1]:
        print(f"{os.path.dirname(logs[0])} has {len(logs)} logs; {os.path.basename(ended[-1])} is the newest with a "
              "result.", file=sys.stderr)
    return ended[-1], values[ended[-1]]


def _why_nothing(directory: str, logs: list[str], keyword: str, signals: tuple[str, ...]) -> str:
    where = f"Nothing found in {directory}: "
    if not logs:
        inner = next((path.parents[1] for depth in (2, 3, 4, 5)
                      for path in sorted(Path(directory).glob("*/" * depth + "log.txt"))), None)
        return where + "no folder in it has a log.txt." + (f" Those in {inner} have: name that one." if inner else "")
    text = Path(logs[0]).read_text(encoding="utf-8", errors="replace")
    if signals == TRAINED and value_in(text, keyword, TESTED) is not None:
        return where + f"{logs[0]} is the log of a test without training. Add --test-log."
    known = sorted(set(re.findall(r"^\* (\w+): [\d.]+%", text, re.M)))
    if known:
        return where + f"{logs[0]} has no {keyword}, but {', '.join(known)}: name one with --keyword."
    return where + f"{logs[0]} has no result; the run did not come to its end, or it was not tested (TEST.NO_TEST)."


if __name__ == "__main__":
    sys.exit(main())
