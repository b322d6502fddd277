"""What differs between two or more runs, or folders of seeds: settings, data, weights, versions, machine, and results.

Exit code 0: nothing that is recorded differs, and the results are equal; 1: something differs; 2: not to be compared.
"""
from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from dassl.errors import UserError  # noqa: E402
from tools import command  # noqa: E402
from tools.comparison import report  # noqa: E402
from tools.comparison.differ import Comparison  # noqa: E402
from tools.comparison.sides import sides_of  # noqa: E402


def parser() -> argparse.ArgumentParser:
    p = command.parser("compare", __doc__)
    p.add_argument("runs", nargs="+", metavar="RUN", help="run folders, or folders that hold the seeds of one row")
    p.add_argument("--classes", type=command.number(0), default=10, metavar="N",
                   help="show the N classes that differ most, 0 for none (default: 10)")
    p.add_argument("--json", action="store_true", help="print everything as JSON")
    return p


def compare(args: argparse.Namespace) -> int:
    if len(args.runs) < 2:
        raise UserError(f"Two or more are compared; only {args.runs[0]} was named.")
    comparison = Comparison(sides_of(args.runs))
    print(json.dumps(report.as_json(comparison), indent=2, ensure_ascii=False) if args.json else
          report.text(comparison, args.classes))
    return 0 if comparison.same and comparison.equal_results else 1


main = command.entry(parser, compare, "Interrupted.")

if __name__ == "__main__":
    command.script(main)
