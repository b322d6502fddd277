"""One cell of a sweep: whether its result is there, and the plain tools/train.py command that makes it.

Imports nothing heavy.
"""
from __future__ import annotations

import json
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from tools import train
from tools.runs import inputs
from tools.runs.cell import MEANT, ROOT, ZEROSHOT, Cell
from tools.runs.folder import RunFolder
from tools.runs.record import Record

FILES_OF_TESTS = {"TEST.SAVE_LOGITS": "logits.npz", "TEST.COMPUTE_CMAT": "cmat.pt"}
TAIL = 8                                            # lines of a failed run that are shown


@dataclass
class Planned:
    """A cell, its run folder and the state of its result.

    Attributes:
        state: "finished", "other" (finished, with other settings), "resume" (has a checkpoint), "test" (finished, and
            asked for a file that only another test writes) or "new".
        changes: for "other", what was set otherwise.
    """

    cell: Cell
    root: str
    output: str
    state: str = "new"
    changes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.look()

    def look(self) -> None:
        """Bring `state` and `changes` up to date with what lies in the run folder."""
        run = self.run
        then = inputs.read(self.folder)
        changes = ["nobody knows how: inputs.json is missing"] if then is None else \
            inputs.differences(then, inputs.describe(train.parser().parse_args(self.arguments)))
        self.state, self.changes = "new", ()
        if run.finished:
            lacks = any(str(self.cell.opts.get(key)).lower() == "true" and not (self.folder / file).is_file()
                        for key, file in FILES_OF_TESTS.items())
            self.state, self.changes = ("other", tuple(changes)) if changes else ("test" if lacks else "finished", ())
        elif not changes and run.has_state:
            self.state = "resume"

    @property
    def folder(self) -> Path:
        return Path(self.output, self.cell.folder)

    @property
    def before(self) -> Path | None:
        """Folder, below the output, of the run that this one tests or starts from, and waits for."""
        cell = self.cell.train_on or self.cell.start_from
        return cell.folder if cell else None

    @property
    def arguments(self) -> list[str]:
        return self.cell.arguments(self.root, self.output)

    @property
    def run(self) -> RunFolder:
        """What lies in its folder now."""
        return RunFolder(self.folder)

    @property
    def record(self) -> Record | None:
        """results.json of the finished run, or None."""
        record = self.run.record
        return record if record and record.finished else None

    @property
    def name(self) -> str:
        shots = "" if self.cell.shots is None else f" {self.cell.shots} shot{'s' * (self.cell.shots != 1)}"
        shots += "" if self.cell.trainer == ZEROSHOT else f" seed {self.cell.seed}"
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

    def launch(self) -> tuple[list[str], dict[str, str]]:
        """Arguments and environment of the run that is to be made now.

        An interrupted one resumes, as the same command would. Otherwise it replaces what a former run left, once it
        writes something itself (`restart.Beginning`): one that is refused costs no result. One that lacks a file of its
        test is only tested again, where it has learned something.
        """
        words = self.arguments
        if self.state == "test" and self.cell.train_on is None and self.run.checkpoint_file().is_file():
            place = words.index("--output-dir")
            words[place:place] = ["--eval-only", "--model-dir", str(self.folder)]
        return words, {train.SWEEP: "resume" if self.state == "resume" else train.ANEW,
                                MEANT: json.dumps(self.cell.as_dict())}


def train_command(arguments: list[str]) -> list[str]:
    return [sys.executable, str(ROOT / "tools" / "train.py"), *arguments]
