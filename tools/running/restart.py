"""The same command again: an interrupted training resumes, anything else starts from scratch.

A training counts as the same if its inputs are (tools/runs/inputs.py), and the code and packages that make a result.
"""
from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import os
from hashlib import sha256
from pathlib import Path

from tools.runs import inputs
from tools.runs.cell import Cell
from tools.runs.folder import STATE, TEST, RunFolder

SWEEP = "DASSL_SWEEP"                       # set in the runs of a sweep, which has its own words for an interruption;
ANEW = "anew"                               # with this value they start from scratch
RESULTS = ("results.json", "predictions.csv", "cmat.pt", "logits.npz", "plots/*.*")
LEARNED = (STATE, TEST, "*/checkpoint", "*/model-best.pth.tar", "*/model.pth.tar-*", "tensorboard/events.*",
           "classes.json", "descriptions.json")     # the pointers before the checkpoints that a run would resume from
_CODE = ("clip", "dassl", "datasets", "trainers")
_PACKAGES = ("torch", "torchvision", "numpy", "pillow", "scikit-learn", "open_clip_torch")

logger = logging.getLogger("tools.running.restart")


class Beginning:
    """A run in its folder, where a former one's result and description stay until this one writes there.

    So results.json always belongs to the inputs.json and config.yaml next to it, whenever a run is interrupted, and one
    that is refused (a dataset that is missing, a checkpoint that is not there) or only built costs no result. Files
    that the run itself has written meanwhile are not taken for a former one's.

    Args:
        cell: what is to be run.
        config: of the run, as config.yaml shall hold it.
        resume: RESUME of the config, which the user has given; "" for none.
    Attributes:
        resume: a run folder for RESUME; "" to start from scratch.
    """

    def __init__(self, folder: Path, args: argparse.Namespace, cell: Cell, config: str, resume: str):
        from dassl.files.whole import remove_parts

        remove_parts(folder)
        self._folder, self._args, self._cell, self._config = folder, args, cell, config
        self._program = _program(args)
        self._replaced = self._described = False
        self.resume = resume or ("" if args.no_train or (args.eval_only and not (folder / TEST).exists())
                                 else self._interrupted())
        self._former = {path: path.stat().st_mtime_ns for path in self._left()}
        if not (folder / RESULTS[0]).exists() and not RunFolder(folder).has_state:
            self._describe()

    def replace(self) -> None:
        """Before the run writes what it learns or finds: a former one's result goes, then this one is described.

        If the training starts from scratch, everything that the former one learned is removed too.
        """
        if self._replaced:
            return
        for path, written in self._former.items():
            if path.exists() and path.stat().st_mtime_ns == written:
                path.unlink()
        self._describe()
        self._replaced = True

    def complete(self) -> None:
        """After the run: its inputs and config once more, should the folder have been removed meanwhile."""
        if self._described and not (self._folder / inputs.FILE).exists():
            self._describe()

    def _interrupted(self) -> str:
        """The folder, if it holds an interrupted run of this command; else ""."""
        from dassl.utils.logger import CONSOLE

        if self._args.anew or os.environ.get(SWEEP) == ANEW or not RunFolder(self._folder).has_state:
            return ""
        reason = _why_anew(self._folder, self._args, self._program)
        if reason is None:
            logger.info("%s holds an interrupted run of this command, which resumes; --anew starts from scratch",
                        self._folder, extra=CONSOLE)
            return str(self._folder)
        if reason:
            logger.warning("%s holds an interrupted run, which cannot resume: %s. Starting from scratch", self._folder,
                           reason)
        return ""

    def _left(self) -> list[Path]:
        """A former run's files that this one replaces; in this order no half of them passes for a whole."""
        goes_on_here = self.resume and Path(self.resume).resolve() == self._folder.resolve()
        of_training = () if self._args.eval_only or goes_on_here else LEARNED
        return [path for pattern in (*RESULTS, *of_training) for path in self._folder.glob(pattern)]

    def _describe(self) -> None:
        from dassl.files.whole import write_whole

        write_whole(self._folder / "config.yaml", self._config)
        other = self._args.model_dir and not inputs.tests_itself(self._args)
        tests = {"tests": os.path.abspath(self._args.model_dir)} if other else {}
        inputs.write(self._folder, self._args, program=self._program, cell=self._cell.as_dict(), **tests)
        self._described = True


def _why_anew(folder: Path, args: argparse.Namespace, program: str) -> str | None:
    """Why the run in a folder cannot resume: "" for one that is complete; None if it can."""
    then = inputs.read(folder)
    if RunFolder(folder).finished:
        return ""
    if then is None:
        return f"its {inputs.FILE} is missing"
    if changes := inputs.differences(then, inputs.describe(args)):
        return "; ".join(changes)
    if then.get("program") != program:
        return f"the program has changed since; --resume {folder} resumes it nevertheless"
    return None


def _program(args: argparse.Namespace) -> str:
    """sha256 of the code of this checkout and of plugins, and of the versions of packages."""
    from dassl.utils.run_record import version_of

    digest = sha256(json.dumps({name: version_of(name) for name in _PACKAGES}).encode())
    folders = [Path(place) for name in _CODE for place in importlib.util.find_spec(name).submodule_search_locations]
    for path in sorted(path for folder in folders for path in folder.rglob("*.py")):
        digest.update(path.read_bytes())
    for plugin in args.plugin:
        digest.update(_source(plugin))
    return digest.hexdigest()


def _source(plugin: str) -> bytes:
    path = Path(plugin).expanduser()
    if not path.is_file():
        found = importlib.util.find_spec(plugin)
        path = Path(found.origin) if found and found.origin else path
    return path.read_bytes() if path.is_file() else b""
