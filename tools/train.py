"""Train and test one method on one dataset: the flags of CoOp's train.py, with plugins and readable errors.

For programs: `parser()`, `setup_cfg(args)` -> frozen config for `dassl.engine.build_trainer`, `main(args)`.
"""
from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:               # trainers, datasets and tools are folders of the checkout, never installed
    sys.path.insert(0, str(ROOT))

from tools.checkout import own_packages_first, register  # noqa: E402
from tools.running import console, endings  # noqa: E402
from tools.running.arguments import parser  # noqa: E402
from tools.running.configuration import setup_cfg  # noqa: E402
from tools.running.endings import IN_USE, PROGRESS, USER_ERROR  # noqa: E402
from tools.running.restart import ANEW, SWEEP  # noqa: E402
from tools.sweeping import leash  # noqa: E402

__all__ = ["ANEW", "IN_USE", "PROGRESS", "ROOT", "SWEEP", "USER_ERROR", "cli", "main", "parser", "register",
           "setup_cfg"]


def main(args: argparse.Namespace) -> None:
    """Train and test, or test only. Raises what goes wrong; the command line turns it into words (`cli`)."""
    own_packages_first()
    from dassl import stop
    from dassl.utils import distributed
    from dassl.utils.deterministic import bit_for_bit
    from tools.running.run import run

    with stop.on_signals(), bit_for_bit(args.deterministic), distributed.processes(), contextlib.ExitStack() as stack:
        run(args, stack)


def cli(argv: list[str] | None = None) -> int:
    """The command line.

    Returns:
        0, 1 (a fault: traceback, or a loss that is not finite), 2 (user error), 75 (in a sweep: another process
        writes in the run folder; try again later), 130 (Ctrl-C), 143 or 129 (SIGTERM, SIGHUP: the state is saved).
    """
    leash.hold()
    if "RANK" in os.environ:                    # started by torchrun
        own_packages_first()
        from dassl.utils import distributed

        distributed.quiet()
    args = parser().parse_args(argv)
    with console.patient():
        return _explained(args)


def _explained(args: argparse.Namespace) -> int:
    """The run or the list; what ends it otherwise in words and as an exit code."""
    try:
        if args.list:
            from tools.running import catalogue

            catalogue.show(args)
        else:
            main(args)
        return 0
    except KeyboardInterrupt:
        return endings.interrupted("Interrupted", 130, args)
    except SystemExit as end:
        if not hasattr(end, "name"):
            raise
        return endings.interrupted(f"Ended by {end.name}", end.code, args)
    except Exception as error:
        from dassl.utils.run_lock import FolderInUse

        if not (message := endings.explain(error, args)):
            raise
        print(f"\n{message}", file=sys.stderr)
        if isinstance(error, FolderInUse) and SWEEP in os.environ:
            return IN_USE
        return 1 if isinstance(error, FloatingPointError) else USER_ERROR


if __name__ == "__main__":
    sys.exit(cli())
