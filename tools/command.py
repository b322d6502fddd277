"""How a command ends: with its code, and with one paragraph for what its user can mend."""
from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable


def run(main: Callable[[argparse.Namespace], int | None], args: argparse.Namespace) -> int:
    """`main(args)` as a command; warnings go to stderr.

    Returns:
        What it returns, or 0 for None; 2 for a UserError, which is printed; 130 when interrupted.
    """
    warnings = logging.StreamHandler(sys.stderr)
    warnings.setLevel(logging.WARNING)          # of the handler: the engine's own loggers let more through
    logging.getLogger().addHandler(warnings)
    from tools.running.foreign import code_of_others

    try:
        with code_of_others(getattr(args, "allow_cpu_shim", False)):
            return main(args) or 0
    except KeyboardInterrupt:
        print("Interrupted; nothing half-written is left.", file=sys.stderr)
        return 130
    except Exception as error:
        from dassl.utils import UserError

        if not isinstance(error, UserError):
            raise
        print(f"\n{error}", file=sys.stderr)
        return 2
    finally:
        logging.getLogger().removeHandler(warnings)
