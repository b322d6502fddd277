"""One cell of a sweep: whether its result is there, and running it as a plain tools/train.py in a process of its own.

Imports nothing heavy.
"""
from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from tools import inputs, train
from tools.inputs import read_json
from tools.recipes import Cell

ROOT = Path(__file__).resolve().parents[1]
USER_ERROR = 2                                      # exit code of tools/train.py
_HEARTBEAT_SECONDS = 30                             # between lines of one run where the console is no terminal
_RESULT_LINE = re.compile(r"=> result|\* [\w-]+: |Elapsed: |\s*$|.* Log: ")
_TAIL = 8                                           # lines of a failed run that are shown


@dataclass
class Planned:
    """A cell, its run folder and how its result stands.

    Attributes:
        state: "finished", "other" (finished, with other settings), "resume" (has a checkpoint) or "new".
        changes: for "other", what was set otherwise.
    """

    cell: Cell
    root: str
    output: str
    state: str = "new"
    changes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        record, then = read_json(self.folder / "results.json"), inputs.read(self.folder)
        changes = ["nobody knows how: inputs.json is missing"] if then is None else \
            inputs.differences(then, inputs.describe(train.parser().parse_args(self.arguments)))
        if record and record.get("finished"):
            self.state, self.changes = ("other", tuple(changes)) if changes else ("finished", ())
        elif not changes and any(self.folder.glob("*/checkpoint")):
            self.state = "resume"

    @property
    def folder(self) -> Path:
        return Path(self.output, self.cell.folder)

    @property
    def arguments(self) -> list[str]:
        return self.cell.arguments(self.root, self.output)

    @property
    def record(self) -> dict | None:
        """results.json of the finished run, or None."""
        record = read_json(self.folder / "results.json")
        return record if record and record.get("finished") else None

    @property
    def name(self) -> str:
        shots = "" if self.cell.shots is None else f" {self.cell.shots} shots seed {self.cell.seed}"
        tag = self.cell.tag.replace("@", " ").replace("_", " ")
        variant = f" ({self.cell.variant})" if self.cell.variant else ""
        return f"{self.cell.trainer}{variant} {self.cell.dataset}{tag}{shots}"

    def command_line(self) -> str:
        """The run as one may type it: relative names inside the checkout, `python` where that is this interpreter."""
        python, script = Path(sys.executable), ROOT / "tools" / "train.py"
        if Path.cwd() == ROOT:
            python, script = (p.relative_to(ROOT) if p.is_relative_to(ROOT) else p for p in (python, script))
        python = "python" if shutil.which("python") == sys.executable else str(python)
        return shlex.join([python, str(script), *self.arguments])

    def clear(self) -> None:
        """Remove what a former run left; a folder that is not a run's stays."""
        if (self.folder / inputs.FILE).exists() or list(self.folder.glob("log.txt*")):
            shutil.rmtree(self.folder)

    def log_tail(self) -> list[str]:
        """Last lines of the newest log, [] where there is none."""
        logs = sorted(self.folder.glob("log.txt*"), key=lambda path: path.stat().st_mtime)
        return logs[-1].read_text(encoding="utf-8", errors="replace").rstrip().splitlines()[-_TAIL:] if logs else []


def train_command(arguments: list[str]) -> list[str]:
    return [sys.executable, str(ROOT / "tools" / "train.py"), *arguments]


class Runner:
    """Runs cells one after the other and shows one line for each, rewritten in place on a terminal.

    What a run says beside its results (warnings) is shown once, not once per seed.
    """

    def __init__(self):
        self.terminal = sys.stdout.isatty() and sys.stderr.isatty()
        self._said: set[str] = set()

    def run(self, planned: Planned, label: str) -> tuple[int, list[str]]:
        """Run to the end.

        Returns:
            Exit code, and the last lines of its stderr (on a terminal it showed them itself: []).
        Raises:
            KeyboardInterrupt, SystemExit: after the run has stopped too.
        """
        resume = ["--resume", str(planned.folder)] if planned.state == "resume" else []
        if not resume:
            planned.clear()
        arguments = planned.arguments
        at = arguments.index("--output-dir")
        self._show(f"{label} ...")
        with subprocess.Popen(train_command(arguments[:at] + resume + arguments[at:]), stdout=subprocess.PIPE,
                              stderr=None if self.terminal else subprocess.PIPE, text=True, errors="replace",
                              env={**os.environ, "PYTHONUNBUFFERED": "1", train.SWEEP: "1"}) as process:
            errors: list[str] = []
            reader = threading.Thread(target=self._watch, args=(process.stderr or (), errors), daemon=True)
            reader.start()
            try:
                for line in process.stdout:
                    self._say(line.rstrip())
                process.wait()
                reader.join()
            except BaseException:
                _stop(process)
                raise
        return process.returncode, errors

    def close(self, line: str) -> None:
        """The run's last word, in place of its progress."""
        print(f"\r\033[K{line}" if self.terminal else line, flush=True)

    def _show(self, line: str) -> None:
        if self.terminal:
            print(f"\r\033[K{line}", end="", flush=True)

    def _say(self, line: str) -> None:
        if not _RESULT_LINE.match(line) and line not in self._said:
            self._said.add(line)
            self.close(f"  {line}")

    def _watch(self, stream, kept: list[str]) -> None:
        """Keep the last lines; now and then show the progress, so that a log of a long sweep shows life."""
        shown = time.monotonic()
        for line in stream:
            kept[:] = [*kept, line.rstrip()][-_TAIL:]
            if ": epoch " in line and time.monotonic() - shown > _HEARTBEAT_SECONDS:
                shown = time.monotonic()
                self.close(f"  {line.rstrip()}")


def _stop(process: subprocess.Popen) -> None:
    """End an interrupted run: Ctrl-C reached it too and it may be saying so; otherwise tell it."""
    for seconds, tell in ((2, signal.SIGINT), (10, signal.SIGTERM), (5, signal.SIGKILL)):
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
            return
        process.send_signal(tell)
    process.wait()
