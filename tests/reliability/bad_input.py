"""Hundreds of cases of bad input; each must end in success or in one paragraph with exit code 2.

    python -m tests.reliability.bad_input                  700 cases or more; takes some minutes
    python -m tests.reliability.bad_input --area "yaml files"
"""
from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

from . import bad_arguments, bad_configs, bad_files
from .cases import Ending, end_of

AREAS = {"config values": bad_configs.options, "config keys": bad_configs.unknown_keys,
         "yaml files": bad_configs.yaml_files, "split files": bad_files.splits,
         "few-shot lists": bad_files.few_shot_lists, "descriptions": bad_files.descriptions,
         "checkpoints": bad_files.checkpoints, "images": bad_files.images, "lists of images": bad_files.own_lists,
         "archives": bad_files.archives, "arguments": bad_arguments.arguments}


def report(endings: list[Ending]) -> str:
    """A Markdown table: cases, refused, accepted and wrong in every area."""
    rows = [f"| {'area':<16} | cases | refused | accepted | wrong |", f"|{'-' * 18}|---|---|---|---|"]
    for area in dict.fromkeys(e.case.area for e in endings):
        own = [e for e in endings if e.case.area == area]
        codes = Counter(e.code for e in own if not e.fault)
        rows.append(f"| {area:<16} | {len(own)} | {codes[2]} | {codes[0]} | {sum(bool(e.fault) for e in own)} |")
    return "\n".join(rows)


def main(argv: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--area", choices=AREAS, help="only this one")
    p.add_argument("--scale", type=float, default=1.0, help="how many of the generated cases (default: 1)")
    p.add_argument("--seed", type=int, default=0, help="other generated cases")
    p.add_argument("--show", action="store_true", help="print every case and what was said")
    args = p.parse_args(argv)
    endings = []
    with tempfile.TemporaryDirectory(prefix="bad-input-") as folder:
        for area in [args.area] if args.area else AREAS:
            for case in AREAS[area](Path(folder, area), args.scale, args.seed):
                endings.append(end_of(case))
                last = endings[-1]
                if args.show or last.fault:
                    print(f"{area}: {case.name}\n  {last.code} {last.fault or last.said[:300]}", flush=True)
    print(report(endings))
    return 1 if any(e.fault for e in endings) else 0


if __name__ == "__main__":
    sys.exit(main())
