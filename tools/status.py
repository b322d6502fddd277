"""One line of standard error that says what is being done, so that nobody takes work for a standstill."""
from __future__ import annotations

import shutil
import sys


def say(doing: str, end: str = "") -> None:
    """Put `doing` in place of the line before; "" takes that away.

    Args:
        end: "\\n" keeps the line. Where standard error is no terminal, only kept lines are written.
    """
    if sys.stderr.isatty():
        shown = doing if end else doing[:shutil.get_terminal_size().columns - 1]    # a second row could not be replaced
        print(f"\r\033[K{shown}", end=end, file=sys.stderr, flush=True)
    elif end:
        print(doing, file=sys.stderr, flush=True)
