"""Say whether this machine is ready: versions, GPU, memory, disk, weights, datasets, and a small training.

The last line says what works. Nothing is downloaded, and nothing but a temporary folder is written.
"""
from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tools import command, status  # noqa: E402
from tools.checkout import default_folder  # noqa: E402
from tools.checkup import NOTE, PROBLEM, Finding  # noqa: E402

_MARKS = {"ok": "  ok    ", NOTE: "  note  ", PROBLEM: "PROBLEM "}


def parser() -> argparse.ArgumentParser:
    p = command.parser("doctor", __doc__)
    p.add_argument("--root", type=Path, default=Path(default_folder("data")),
                   help="folder of the datasets (default: $DATA, else data/ of the checkout)")
    p.add_argument("--output", type=Path, default=Path(default_folder("output")),
                   help="folder of all runs (default: $OUTPUT, else output/ of the checkout)")
    p.add_argument("--no-training", action="store_true", help="leave the small training out")
    p.add_argument("--json", action="store_true", help="findings as JSON instead of lines")
    return p


def examine(args: argparse.Namespace, show: Callable[[Finding], None]) -> tuple[list[Finding], dict]:
    """All checks, one after the other; `show` gets each finding at once.

    Returns:
        The findings, and what the training measured, {} where there was none. Without working packages nothing
        further is looked at.
    """
    from tools.checkup import packages

    findings: list[Finding] = []

    def note(what: str, found: Iterable[Finding]) -> None:
        status.say(f"  ...   {what}")
        for finding in found:
            findings.append(finding)
            status.say("")
            show(finding)
            status.say(f"  ...   {what}")
        status.say("")

    note("packages", packages.check())
    if any(finding.state == PROBLEM for finding in findings):
        return findings, {}
    from clip.weights import cache_folders
    from dassl.utils import cache_dir
    from tools.checkup import holdings, machine, training

    note("GPU, memory and disk", machine.check({"runs": args.output, "datasets": args.root, "caches": cache_dir(),
                                                "weights": cache_folders()[0]}))
    note("weights, read to their end", holdings.weights())
    note("datasets", holdings.datasets(args.root.expanduser().absolute()))
    if args.no_training:
        return findings, {}
    finding, measured = training.check()
    note("training", [finding])
    return findings, measured


def summary(findings: list[Finding], measured: dict) -> str:
    """One line: what works, and how many things do not."""
    problems = [finding for finding in findings if finding.state == PROBLEM]
    held = "; ".join(f"{f.area}: {f.short}" for f in findings if f.short)
    stops = f"{len(problems)} problem{'s' * (len(problems) != 1)} ({', '.join(p.area for p in problems)})"
    if measured:
        works = (f"training, testing and predicting on {measured['device']}, {measured['ms_per_step']:.0f} ms a step "
                 f"with the embedded model; {held}")
        return f"Works: {works}." + (f" But {stops}, see above." if problems else "")
    if problems:
        return f"Does not work yet: {stops}, each with its way out above."
    return f"Nothing stops you, as far as was looked; training was not tried; {held}."


def look(args: argparse.Namespace) -> int:
    """Print what is found. Returns 0, or 1 where something does not work."""
    def show(finding: Finding) -> None:
        if not args.json:
            print(f"{_MARKS[finding.state]}{finding.area}: {finding.text}", flush=True)
            if finding.way_out:
                print(f"          -> {finding.way_out}", flush=True)

    findings, measured = examine(args, show)
    stopped = any(finding.state == PROBLEM for finding in findings)
    line = summary(findings, measured)
    if args.json:
        print(json.dumps({"works": not stopped, "summary": line, "training": measured,
                          "findings": [vars(finding) for finding in findings]}, indent=2, ensure_ascii=False))
    else:
        print(f"\n{line}")
    return 1 if stopped else 0


main = command.entry(parser, look, "Interrupted.")

if __name__ == "__main__":
    sys.exit(main())
