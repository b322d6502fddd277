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
_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
_REFUSED = _FULL | {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST,
                    errno.ENAMETOOLONG}
_AWAY = {errno.EIO, errno.ENOENT, errno.ELOOP, errno.EINVAL, getattr(errno, "ESTALE", errno.EIO),
         getattr(errno, "EHOSTDOWN", errno.EIO)}


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


def add_own_images(p: argparse._ActionsContainer) -> None:
    """--dataset-dir, --template and --classnames."""
    p.add_argument("--dataset-dir", default="", metavar="PATH",
                   help="images of your own: a folder with one folder per class (or train/, val/, test/ of them), or a "
                        "CSV or JSON of path, label, classname and perhaps split; missing splits are drawn")
    p.add_argument("--template", default="", help='sentence for their class names, e.g. "a photo of a {}, a fruit."')
    p.add_argument("--classnames", default="", metavar="FILE",
                   help='their class names: one per line, in order of the folders, or "folder: name" lines, or JSON')


def add_code_of_others(p: argparse._ActionsContainer) -> None:
    """--plugin, --replace, --extend-cfg, --new-key and --allow-cpu-shim, of what trains with somebody else's code."""
    p.add_argument("--plugin", action="append", default=[], metavar="FILE_OR_MODULE",
                   help="a .py file or a module that registers trainers or datasets; repeatable")
    p.add_argument("--replace", action="store_true",
                   help="let --plugin files take over names that are taken, e.g. the authors' own CoOp")
    p.add_argument("--extend-cfg", default="", metavar="FILE",
                   help="the train.py of somebody else's repository: its extend_cfg(cfg) adds its config keys, and "
                        "what it does to the config with the defaults of its own flags is done; nothing else is run")
    p.add_argument("--new-key", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"),
                   help="declare a config key that somebody else's code reads and no extend_cfg makes; repeatable")
    p.add_argument("--allow-cpu-shim", action="store_true",
                   help="where there is no CUDA, run .cuda() and device \"cuda\" of other people's code on the CPU")


def add_places(p: argparse._ActionsContainer) -> None:
    """--data and --output."""
    p.add_argument("--data", default=os.environ.get("DATA"), help="root of the datasets (default: $DATA, else data/)")
    p.add_argument("--output", default=os.environ.get("OUTPUT"),
                   help="folder of all runs (default: $OUTPUT, else output/)")


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
    """`main(args)` as a command that may run code of others, all trainers registered; warnings go to stderr.

    Returns what `ended` does.
    """
    warnings = logging.StreamHandler(sys.stderr)
    warnings.setLevel(logging.WARNING)          # of the handler: the engine's own loggers let more through
    logging.getLogger().addHandler(warnings)
    from tools.checkout import register
    from tools.running.foreign import code_of_others

    def work() -> int | None:
        with code_of_others(getattr(args, "allow_cpu_shim", False)):
            register(getattr(args, "plugin", []))
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
    return str(error) if isinstance(error, UserError) else refused(error)


def refused(error: Exception, run: str = "") -> str:
    """The message for what the file system refuses; "" for anything else.

    Args:
        run: the run folder, if only what is refused there counts, besides a full disk; it may also be out of reach.
    """
    if not isinstance(error, OSError) or error.errno not in _REFUSED | (_AWAY if run else set()):
        return ""
    path = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else ""
    within = not path or _within(path, run) or _within(run, path)
    if run and error.errno not in _FULL and not (path and within):
        return ""
    again, flag = "run the same command again", ""
    if run:
        from tools.running.restart import SWEEP
        from tools.runs.folder import RunFolder

        again += ": it resumes from what was saved" * RunFolder(run).has_state
        flag = f" with {'--output' if SWEEP in os.environ else '--output-dir'}"
    if error.errno in _FULL:
        full = run if run and within else path or "a file"
        return f"The disk of {full} is full ({error.strerror}). Free some space and {again}."
    return (f"{path or 'A file'} cannot be read or written ({error.strerror}). Name another place{flag}, "
            "or change what is in the way there (rights, a file where a folder "
            f"should be, a disk or network folder that is away) and {again}.")


def _within(path: str, folder: str) -> bool:
    return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder))
