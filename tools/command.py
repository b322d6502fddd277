"""What commands share: parsers, numbers as flags, and how they end: a code, and a paragraph for what its user can fix.

Imports nothing heavy.
"""
from __future__ import annotations

import argparse
import errno
import logging
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from dassl.errors import UserError
from tools.running import console

HELP = Path(__file__).with_name("help")         # the text below the flags of each command
called = "tools/{}.py"                          # how a command is called by its name; dassl-prompts sets another way
FOR_CLASSES = "for runs that did not write down their classes"
INTERRUPTED = "Interrupted; nothing half-written is left."
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC),
            errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG}


class Parser(argparse.ArgumentParser):
    """Adds to argparse's errors what was probably meant: the nearest flag or choice, or KEY VALUE for KEY=VALUE."""

    def error(self, message: str) -> NoReturn:
        super().error(message + self._hint(message))

    def _hint(self, message: str) -> str:
        from dassl.names import nearest

        if hint := pair_hint(message):
            return f"\n{hint}"
        if found := re.search(r"invalid choice: '([^']*)'", message):
            known = [str(choice) for action in self._actions for choice in action.choices or ()]
            return nearest(found[1], known)
        if message.startswith("unrecognized arguments:"):
            flags = [word.partition("=")[0] for word in message.partition(":")[2].split() if word.startswith("--")]
            return "".join(nearest(flag, self._option_string_actions) for flag in flags[:1])
        return ""


def parser(name: str, description: str, **options) -> argparse.ArgumentParser:
    """The parser of a command; the text below its flags is tools/help/<name>.txt."""
    return Parser(prog=called.format(name), description=description, epilog=epilog(name),
                  **{"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False, **options})


def add_run_flags(p: argparse.ArgumentParser, root_is_for: str = "if it is no longer where the run found it",
                  epoch: bool = True) -> None:
    """--epoch, --root and --plugin, of what builds again what a run has learned."""
    if epoch:
        p.add_argument("--epoch", type=int, help="which checkpoint (default: the one that the run was tested with)")
    p.add_argument("--root", default="", help=f"folder of the datasets, {root_is_for}")
    p.add_argument("--plugin", action="append", default=[], metavar="FILE_OR_MODULE",
                   help="defines the run's trainer, if this checkout does not; repeatable")


def epilog(name: str) -> str:
    """tools/help/<name>.txt; "" where there is none."""
    path = HELP / f"{name}.txt"
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def pair_hint(text: str) -> str:
    """How OPTIM.LR=0.01 is written, if `text` has such a pair; else ""."""
    pair = re.search(r"(?<!\S)[\"']?([A-Z][A-Z0-9_]*(?:\.[A-Z0-9_]+)+)=([^\s'\"]*)", text)
    return f"Config options are KEY VALUE with a space: {pair[1]} {pair[2] or 'VALUE'}" if pair else ""


def script(main: Callable[[], int | None]) -> NoReturn:
    """`main()` as a command that ends quietly where nobody reads it any more, as in `| head`."""
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(ended(main, "Interrupted."))


def run(main: Callable[[argparse.Namespace], int | None], args: argparse.Namespace,
        interrupted: str = INTERRUPTED) -> int:
    """`main(args)` as a command that may run code of others; warnings go to stderr. Returns what `ended` does."""
    warnings = logging.StreamHandler(sys.stderr)
    warnings.setLevel(logging.WARNING)          # of the handler: the engine's own loggers let more through
    logging.getLogger().addHandler(warnings)
    from tools.running.foreign import code_of_others

    def work() -> int | None:
        with code_of_others(getattr(args, "allow_cpu_shim", False)):
            return main(args)

    try:
        return ended(work, interrupted)
    finally:
        logging.getLogger().removeHandler(warnings)


def entry(parser: Callable[[], argparse.ArgumentParser], work: Callable[[argparse.Namespace], int | None],
          interrupted: str = INTERRUPTED, of_others: bool = False) -> Callable[[list[str] | None], int]:
    """The command line of a tool: words, by default the process's own, to an exit code, as `ended` says.

    Args:
        of_others: `work` may run code of others, see `run`.
    """
    def main(argv: list[str] | None = None) -> int:
        args = parser().parse_args(argv)
        return run(work, args, interrupted) if of_others else ended(lambda: work(args), interrupted)

    return main


def ended(work: Callable[[], int | None], interrupted: str = INTERRUPTED) -> int:
    """`work()` as a command.

    Args:
        interrupted: what Ctrl-C is answered with.
    Returns:
        What it returns, or 0 for None; 2 for a UserError or what the file system refuses, in words; 130 for Ctrl-C;
        141, as shells count SIGPIPE, where nobody reads the output any more.
    """
    try:
        with console.escaping():
            return work() or 0
    except KeyboardInterrupt:
        print(f"\n{interrupted}", file=sys.stderr)
        return 130
    except BrokenPipeError:                             # `| head` has read enough
        return 128 + 13
    except Exception as error:
        if not (message := _message(error)):
            raise
        with console.escaping():
            print(f"\n{message}", file=sys.stderr)
        return 2


def number(least: int, kind: type = int) -> Callable[[str], int | float]:
    """A type of flags: a number, a whole one unless `kind` is float, not under `least`."""
    def read(text: str) -> int | float:
        if not re.fullmatch(r"\d+" if kind is int else r"\d+(\.\d*)?", text) or kind(text) < least:
            raise argparse.ArgumentTypeError(f"must be a {'whole ' * (kind is int)}number of at least {least}, "
                                             f"got {text!r}")
        return kind(text)

    return read


def _message(error: Exception) -> str:
    """The message for what a user can fix; "" for anything else, which deserves its traceback."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.errno in _REFUSED:
        what = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else "A file"
        return (f"{what} cannot be read or written ({error.strerror}). Name another place, or change what is in the "
                "way there: rights, a full disk, a file where a folder should be.")
    return ""
