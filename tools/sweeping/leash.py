"""A run of a sweep ends when the sweep does, even by kill -9: its stdin is a pipe that only the sweep holds."""
from __future__ import annotations

import contextlib
import os
import signal
import threading
import time

LEASH = "DASSL_LEASH"                       # set by the sweep for runs whose stdin is such a pipe
_GRACE_SECONDS = 15                         # between asking this process to end and ending it


def hold() -> None:
    """Watch stdin in a thread if the environment says that it is a leash; otherwise do nothing.

    Ctrl-C is then for the sweep to act on: it asks its runs to save where they are, which an interrupt would not.
    """
    if os.environ.pop(LEASH, "") == "stdin":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        threading.Thread(target=_watch, name="leash", daemon=True).start()


def _watch() -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 1):
            pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_SECONDS)
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
