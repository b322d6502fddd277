"""A run folder as predicting and sharing read it: its classes, its weights, and where its prompts are."""
from __future__ import annotations

import logging
import shlex
from functools import cached_property
from pathlib import Path

from dassl.utils import UserError
from dassl.utils.classes_file import FILE as CLASSES
from tools import inputs
from tools.plotting.run import LEARNER, Run

logger = logging.getLogger(__name__)


class Source(Run):
    """A run folder to predict from."""

    @cached_property
    def told(self) -> dict:
        """classes.json, or {} for a run that was made before there was one."""
        return inputs.read_json(self.folder / CLASSES) or {}

    @cached_property
    def names(self) -> list[str]:
        """The class names; of an older run, its dataset's.

        Raises:
            UserError: neither says them.
        """
        names = self.told.get("classnames")
        if names is None:
            try:
                return self.classnames
            except UserError as error:
                raise UserError(f"{self.folder} has no {CLASSES}, as older runs have none, and its dataset does not "
                                f"say the classes either ({error}) Give them with --classes, in the order of their "
                                "labels.") from error
        if not (isinstance(names, list) and names and all(isinstance(name, str) for name in names)):
            raise UserError(f"{self.folder / CLASSES} names no classes: \"classnames\" is a list of texts.")
        return names

    @cached_property
    def template(self) -> str | None:
        """The dataset's sentence; None stands for CLIP's general one."""
        if not self.told and not self.settings["DATASET"].get("TEMPLATE"):
            try:
                return getattr(self.built_dataset, "template", None)
            except UserError as error:
                logger.warning("%s has no %s, as older runs have none, and its dataset is not here to say its sentence "
                               "(%s). The general one is taken where a method needs it.", self.folder, CLASSES, error)
        return self.told.get("template") or self.settings["DATASET"].get("TEMPLATE") or None

    @property
    def learned_in(self) -> Source:
        """The run whose checkpoint this one was tested with: itself, unless it only tested."""
        flags = (inputs.read(self.folder) or {}).get("flags", {})
        given = flags.get("model_dir", "")
        if self.record.get("mode") != "eval-only" or not given or (self.folder / LEARNER).is_dir():
            return self
        epoch = self.epoch if self.epoch is not None else flags.get("load_epoch")
        # inputs.json keeps the last four parts: <dataset>/<trainer>/<variant>/<seed> below the folder of all results.
        places = [base / given for base in (*self.folder.absolute().parents, Path.cwd())]
        words = shlex.split(self.record.get("command", ""))
        places += [Path(words[i + 1]) for i, word in enumerate(words[:-1]) if word == "--model-dir"]
        for place in places:
            if (place / "config.yaml").is_file():
                return Source(place, epoch, plugins=self.plugins)
        raise UserError(f"{self.folder} tested what the run .../{given} had learned, and that run is not beside it. "
                        "Name its folder instead.")

    @property
    def backbone(self) -> dict:
        """{"name", "sha256"} as recorded, or {}."""
        return self.told.get("backbone") or self.record.get("backbone") or {}

    @property
    def weights(self) -> set[str]:
        """Every sha256 of CLIP's weights that the folder names; more than one does not happen unless it was changed."""
        return {told["sha256"] for told in (self.told.get("backbone"), self.record.get("backbone"))
                if isinstance(told, dict) and told.get("sha256")}
