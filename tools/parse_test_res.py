"""Mean and spread over the seeds of one experiment, read from log.txt files: the flags and the output of CoOp's tool.

It reads the logs of CoOp, Dassl.pytorch and what grew from them, and our own. Where there is a results.json,
tools/table.py says more. What this tool has to add to the original's words, it says on stderr.

Source: KaiyangZhou/CoOp, parse_test_res.py (flags, output, population std, 1.96 * std / sqrt(n)), COOP.md (examples).
"""
from __future__ import annotations

import argparse
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


def value_in(log: Path, keyword: str, signals: tuple[str, ...]) -> float | None:
    """The last "* keyword: 93.1%" below a line that is one of `signals`; None where there is none."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    start = next((i for i, line in enumerate(lines) if line.strip() in signals), len(lines))
    found = re.findall(rf"\* {re.escape(keyword)}: ([\.\deE+-]+)%", "\n".join(lines[start:]))
    return float(found[-1]) if found else None


def parse(directory: Path, keyword: str, signals: tuple[str, ...], with_ci95: bool) -> float:
    """Print what CoOp's tool prints for one experiment; returns the mean over its seeds.

    A run that resumes after an interruption, or is repeated in its folder, has a further log, log.txt-<time>; the
    newest one with a result counts.

    Args:
        directory: holds a folder with a log.txt per seed; or is such a folder itself.
    Raises:
        UserError: no log has a result.
    """
    print(f"Parsing files in {directory}")
    values, silent = [], []
    for run in [directory] if (directory / "log.txt").is_file() else folders_in(directory):
        logs = sorted(run.glob("log.txt*"))
        ended = [(log, value) for log in logs if (value := value_in(log, keyword, signals)) is not None]
        if not ended:
            silent.append((logs or [run])[0])
            continue
        path, value = ended[-1]
        if len(ended) > 1 or path != logs[-1]:
            print(f"{run} has {len(logs)} logs; {path.name} is the newest with a result.", file=sys.stderr)
        values.append(value)
        print(f"file: {path}. {keyword}: {value:.2f}%. ")
    if not values:
        raise UserError(why_nothing(directory, [path for path in silent if path.is_file()], keyword, signals))
    for path in silent:
        print(f"No {keyword if path.is_file() else 'log.txt'} in {path}; it is left out.", file=sys.stderr)
    spread = statistics.pstdev(values) * (1.96 / len(values) ** 0.5 if with_ci95 else 1)
    mean = statistics.fmean(values)
    print(f"===\nSummary of directory: {directory}\n* {keyword}: {mean:.2f}% +- {spread:.2f}%\n===")
    return mean


def folders_in(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if path.is_dir() and not path.name.startswith("."))


def why_nothing(directory: Path, logs: list[Path], keyword: str, signals: tuple[str, ...]) -> str:
    where = f"Nothing found in {directory}: "
    if not logs:
        inner = next((path.parents[1] for path in sorted(directory.rglob("*/log.txt"))), None)
        return where + "no folder in it has a log.txt." + (f" Those in {inner} have: name that one." if inner else "")
    if signals == TRAINED and value_in(logs[0], keyword, TESTED) is not None:
        return where + f"{logs[0]} is the log of a test without training. Add --test-log."
    text = logs[0].read_text(encoding="utf-8", errors="replace")
    if known := sorted(set(re.findall(r"^\* (\w+): [\d.]+%", text, re.M))):
        return where + f"{logs[0]} has no {keyword}, but {', '.join(known)}: name one with --keyword."
    return where + f"{logs[0]} has no result; the run did not come to its end, or it was not tested (TEST.NO_TEST)."


def parser() -> argparse.ArgumentParser:
    p = command.parser("parse_test_res", __doc__.splitlines()[0], allow_abbrev=True)
    p.add_argument("directory", type=Path, help="folder with one folder per seed, each of which has a log.txt")
    p.add_argument("--ci95", action="store_true", help="95 %% confidence interval instead of the standard deviation")
    p.add_argument("--test-log", action="store_true",
                   help="the logs are of tests only (--eval-only), where nothing was trained")
    p.add_argument("--multi-exp", action="store_true", help="the folder holds several experiments")
    p.add_argument("--keyword", default="accuracy", help="which result: accuracy, error, macro_f1 (default: accuracy)")
    return p


def parse_all(args: argparse.Namespace) -> None:
    """Every experiment asked for; UserError where nothing was found."""
    if not args.directory.is_dir():
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
