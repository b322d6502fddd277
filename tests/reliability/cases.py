"""Cases of bad input, and the one rule for all of them: success, or exit code 2 with one paragraph."""
from __future__ import annotations

import contextlib
import io
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

SECONDS = 60                     # a case that takes longer hangs
PARAGRAPH = 1600                 # characters; longer ones are not read


@dataclass
class Case:
    """`run()` behaves like a command line: it returns an exit code, or raises SystemExit as argparse does.

    Attributes:
        area, name: for the report.
        untouched: folder in which a refusal must leave nothing new.
        accepts: False where success would be a silently wrong result.
        codes: exit codes that the command documents.
    """

    area: str
    name: str
    run: Callable[[], int | None]
    untouched: Path | None = None
    accepts: bool = True
    codes: tuple[int, ...] = (0, 2)


@dataclass
class Ending:
    """code: 0 or 2. fault: "" where the rule was kept, else what was wrong. said: of standard error."""

    case: Case
    code: int | None
    fault: str
    said: str


class Hang(BaseException):
    """Raised in the case that takes too long."""


def some(count: int, scale: float) -> int:
    """Of `count` cases, as many as `scale` says, at least one."""
    return max(1, round(count * scale))


def end_of(case: Case) -> Ending:
    """Run a case in this process and judge how it ended."""
    out, err = io.StringIO(), io.StringIO()
    before = files_in(case.untouched)
    code, fault = None, ""
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), time_limit():
        try:
            code = case.run() or 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        except Hang:
            fault = f"hangs: nothing after {SECONDS} seconds"
        except BaseException as error:      # noqa: BLE001 - whatever comes out would be a traceback
            fault = "".join(traceback.format_exception(error)[-4:])
    said = err.getvalue().strip()
    if not fault:
        fault = judge(case, code, said)
    if not fault and code == 2 and (new := files_in(case.untouched) - before):
        fault = f"a refusal left {sorted(new)[:3]} behind"
    return Ending(case, code, fault, said)


def judge(case: Case, code: int, said: str) -> str:
    """"" or what is wrong with this ending."""
    if code not in case.codes:
        return f"exit code {code}: {said[-500:]}"
    if "Traceback (most recent call last)" in said:
        return f"a traceback: {said[-500:]}"
    if code == 2 and not said:
        return "refused without a word"
    if code == 2 and len(said.split("error:")[-1]) > PARAGRAPH:
        return f"refused with {len(said)} characters"
    if code == 0 and not case.accepts:
        return "accepted"
    return ""


def files_in(folder: Path | None) -> set[str]:
    return set() if folder is None else {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


@contextlib.contextmanager
def time_limit() -> Iterator[None]:
    """Raise Hang in the main thread after SECONDS; without effect where there are no such signals."""
    if not hasattr(signal, "SIGALRM") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_):
        raise Hang

    former = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, former)


@contextlib.contextmanager
def in_folder(folder: Path) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
