"""A run folder, finished or not: the one reader of what tools/train.py leaves. Imports nothing heavy.

Folders are found by what they hold, and their names are never read: a run is what its cell says, or, where it was made
before cells were stored, what inputs.json and results.json do.
"""
from __future__ import annotations

import csv
import os
import shlex
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import yaml

from dassl.errors import UserError
from tools.runs import inputs, record
from tools.runs.by_hand import by_contents
from tools.runs.cell import CLASSES as CLASSES_KEY
from tools.runs.cell import HALVES, SHOTS, Cell
from tools.runs.inputs import parse_yaml, read_json
from tools.runs.record import Record

CONFIG, LOG, PREDICTIONS, CLASSES, LOCK = "config.yaml", "log.txt", "predictions.csv", "classes.json", "run.lock"
STATE = "resume.pth.tar"                # dassl.engine.resume.FILE, which is slow to import
TEST = "test.pth.tar"                   # dassl.engine.answering.FILE, likewise
LEARNER = "prompt_learner"              # the model whose checkpoint holds all that was learned
BEST = "model-best.pth.tar"             # dassl.utils.torchtools.BEST, likewise
_PLACES = {"OUTPUT_DIR", "RESUME", "DATASET.ROOT"}                     # where, not what


class Damaged(UserError):
    """A file of a run folder that cannot be read; the message names it and the way out."""


class RunFolder:
    """What lies in a run folder, read when it is asked for and kept.

    Attributes:
        folder: where it lies.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    @cached_property
    def record(self) -> Record:
        """results.json; empty where there is none that is a run's."""
        return Record.read(self.folder) or Record()

    @cached_property
    def given(self) -> dict[str, dict]:
        """inputs.json: flags, opts and files of the command; {} where it does not say."""
        content = inputs.read(self.folder) or {}
        parts = {key: content.get(key, {}) for key in ("flags", "opts", "files")}
        if not content or not all(isinstance(part, dict) for part in parts.values()):
            return {}
        flags, texts = parts["flags"], ("trainer", "model_dir", "dataset_dir")
        sound = type(flags.get("seed", 0)) is int and all(isinstance(flags.get(name, ""), str) for name in texts)
        shots = str(parts["opts"].get(SHOTS, 0)).removeprefix("-")
        return parts if sound and shots.isdecimal() else {}

    @property
    def flags(self) -> dict:
        return self.given.get("flags", {})

    @property
    def opts(self) -> dict:
        return self.given.get("opts", {})

    @property
    def is_run(self) -> bool:
        """Whether a run has begun here or left its result."""
        return bool(self.given) or self.record.is_a_runs

    @property
    def finished(self) -> bool:
        return self.record.finished

    @property
    def accuracy(self) -> float | None:
        """Percent, of a finished run; None where it has none."""
        return self.record.accuracy

    @property
    def metrics(self) -> dict[str, float]:
        return self.record.metrics

    @cached_property
    def cell(self) -> Cell:
        """What was to be run: as stored, else by what the run was given."""
        stored = self.record.cell or Cell.from_dict((inputs.read(self.folder) or {}).get("cell"))
        if stored:
            return stored
        tested = self.tests
        return by_contents(self.given, self.record, tested.cell if tested else self._lost())

    @property
    def seed(self) -> int:
        """-1: unseeded, or nobody knows."""
        known = self.record.get("seed", self.flags.get("seed"))
        known = self.settings_or_none.get("SEED") if known is None else known       # slow to read
        return known if type(known) is int else -1

    @property
    def tests(self) -> RunFolder | None:
        """The folder of the run whose prompts were tested here; None where it trained, or that one is not there."""
        if not (given := self._tested):
            return None
        # inputs.json keeps the last parts of that folder's path as well as the whole, which may be another machine's.
        places = [base / given for base in (*self.folder.absolute().parents, Path.cwd())]
        whole = (inputs.read(self.folder) or {}).get("tests") or _after("--model-dir", self.record.get("command", ""))
        places += [Path(whole)] if isinstance(whole, str) and whole else []
        return next((RunFolder(place) for place in places
                     if place != self.folder.absolute() and (is_run(place) or (place / inputs.FILE).is_file())), None)

    @property
    def _tested(self) -> str:
        """--model-dir of a run that only tests, as inputs.json has it."""
        only_tests = self.flags.get("eval_only") or self.record.get("mode") == "eval-only"
        return self.flags.get("model_dir", "") if only_tests else ""

    def _lost(self) -> Cell | None:
        """Stands for a tested run that is not here any more: it is called by what is left of its path.

        One that tests half of the classes tests what the other half's training left, on the same dataset.
        """
        halved = {str(self.record.get("classes")), str(self.opts.get(CLASSES_KEY))} & set(HALVES)
        return Cell("", self._tested, None, -1, "") if self._tested and not halved else None

    @cached_property
    def settings(self) -> dict:
        """config.yaml, plain; {} where there is none.

        Raises:
            Damaged: it is not a run's.
        """
        path = self.folder / CONFIG
        try:
            content = parse_yaml(path.read_text(encoding="utf-8")) if path.is_file() else {}
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise Damaged(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
        if not isinstance(content or {}, dict):
            raise Damaged(f"{path} is damaged: a run writes sections of settings there.")
        return content or {}

    @property
    def settings_or_none(self) -> dict:
        """`settings`, or {} where they are damaged too."""
        try:
            return self.settings
        except (Damaged, OSError):
            return {}

    @cached_property
    def config(self) -> dict[str, object]:
        """Dotted key of `settings` -> value, without the folders that were read and written."""
        return {key: value for key, value in flat(self.settings).items() if key not in _PLACES}

    @cached_property
    def classes(self) -> dict:
        """classes.json; {} for a run that was made before there was one."""
        return read_json(self.folder / CLASSES) or {}

    @cached_property
    def _rows(self) -> list[dict[str, str]]:
        """Those of predictions.csv; [] without. Raises Damaged."""
        path = self.folder / PREDICTIONS
        if not path.is_file():
            return []
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            try:
                return list(csv.DictReader(file))
            except csv.Error as error:
                raise Damaged(f"{path} is damaged: {error}. Without it the rest can be compared.") from error

    @property
    def answers(self) -> list[tuple[str, str, str]]:
        """(path, true, predicted class) of every image tested; [] where no file says it. Raises Damaged."""
        return self._of_rows("path", "true", "predicted")

    @property
    def confidences(self) -> list[tuple[float, bool]]:
        """(confidence in [0, 1], whether it was right) of every answer; as `answers`."""
        return [(float(confidence), correct == "1") for confidence, correct in self._of_rows("confidence", "correct")]

    def _of_rows(self, *names: str) -> list[tuple[str, ...]]:
        found = [tuple(map(row.get, names)) for row in self._rows]
        return [] if any(None in row for row in found) else found

    @property
    def predictions(self) -> dict[str, tuple[str, str]]:
        """Path -> true and predicted class."""
        return {path: (true, predicted) for path, true, predicted in self.answers}

    @cached_property
    def per_class(self) -> dict[str, float]:
        """Class -> accuracy in percent; {} where the run has not recorded it."""
        if recorded := self.record.get("per_class"):
            return recorded
        hits: dict[str, list[bool]] = {}
        for _, true, predicted in self.answers:
            hits.setdefault(true, []).append(true == predicted)
        return {name: 100 * sum(own) / len(own) for name, own in hits.items()}

    def log_tail(self, lines: int) -> list[str]:
        """Last lines of the newest log, [] where there is none."""
        logs = sorted(self.folder.glob(f"{LOG}*"), key=lambda path: path.stat().st_mtime)
        return logs[-1].read_text(encoding="utf-8", errors="replace").rstrip().splitlines()[-lines:] if logs else []

    @property
    def stopped(self) -> bool:
        """Whether its log says that something ended it before its time."""
        return any(line.startswith("Stopped:") for line in self.log_tail(10_000))

    @property
    def has_state(self) -> bool:
        """Whether a training or a test here could resume."""
        return any((self.folder / name).exists() for name in (STATE, TEST)) or any(self.folder.glob("*/checkpoint"))

    def checkpoint_file(self, model: str = LEARNER, epoch: int | None = None) -> Path:
        """File of a learned model, which need not be there: of an epoch, or the one that the run was tested with."""
        pointer, best = self.folder / model / "checkpoint", self.folder / model / BEST
        if epoch is not None:
            return self.folder / model / f"model.pth.tar-{epoch}"
        return best if best.is_file() or not pointer.is_file() else pointer.with_name(
            pointer.read_text(encoding="utf-8").strip())

    @property
    def place(self) -> Path:
        """The folder of results that it lies in as a sweep lays runs out, else the folder above it."""
        parts = self.cell.folder.parts
        laid_out = self.folder.absolute().parts[-len(parts):] == parts
        return self.folder.absolute().parents[len(parts) - 1 if laid_out else 0]


def _after(flag: str, command: str) -> str:
    """What follows a flag in the command of a record of version 1; "" where it is not there."""
    try:
        words = shlex.split(command)
    except ValueError:                      # a quote is not closed: no command of ours
        return ""
    return words[words.index(flag) + 1] if flag in words[:-1] else ""


def is_run(folder: Path) -> bool:
    """Whether a run has begun there, as far as its file of settings tells."""
    return (folder / CONFIG).is_file()


def below(*roots: str | Path) -> list[RunFolder]:
    """Every run folder below these folders, each once, in order of their names; hidden folders are left out."""
    found: dict[Path, RunFolder] = {}
    for root in roots:
        for folder, folders, files in os.walk(root):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            if {record.FILE, inputs.FILE} & set(files):
                run = RunFolder(os.path.abspath(folder))
                if run.is_run:
                    found[run.folder] = run
    return list(found.values())


def flat(settings: Mapping, prefix: str = "") -> dict[str, object]:
    """Dotted key -> value of nested sections."""
    found: dict[str, object] = {}
    for key, value in settings.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found
