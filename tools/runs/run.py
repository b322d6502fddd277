"""A run folder whose model and data are wanted too: what was learned, its config of today's code, its dataset.

Nothing of a run folder is executed: settings are plain data, checkpoints are tensors, and a plugin that the run was
made with is imported only if it is named again.
"""
from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

from torch import Tensor

from dassl.config import RETIRED, CfgNode, get_cfg_default, merge_opts
from dassl.data.datasets import build_dataset
from dassl.engine import TRAINER_REGISTRY
from dassl.engine.checkpoint_files import read_weights
from dassl.engine.plugins import extend_all
from dassl.utils import UserError, nearest
from tools.checkout import register
from tools.runs.cell import ROOT
from tools.runs.folder import CLASSES, LEARNER, RunFolder, is_run
from tools.runs.inputs import name_of, read_json

logger = logging.getLogger(__name__)


class Run(RunFolder):
    """A folder that tools/train.py wrote.

    Args:
        folder: with config.yaml, as a run leaves it.
        epoch: whose checkpoint is read; None takes the one that the run was tested with: the best on the validation
            split where one was kept, else the last.
        root: folder of the datasets, where they have moved since; "" is the run's own.
        plugins: files or modules that define the run's trainer or dataset, where this checkout does not define them.
    Raises:
        UserError: it is not a run folder.
    """

    def __init__(self, folder: str | Path, epoch: int | None = None, root: str = "", plugins: Sequence[str] = ()):
        super().__init__(folder)
        self.epoch, self.root, self.plugins = epoch, root, list(plugins)
        if not is_run(self.folder):
            raise UserError(_no_run(self.folder))
        _ = self.settings                           # raises Damaged

    @property
    def trainer(self) -> str:
        return self.settings["TRAINER"]["NAME"]

    @property
    def dataset(self) -> str:
        return self.settings["DATASET"]["NAME"]

    @property
    def dataset_name(self) -> str:
        """As tables call it: digits_lowcontrast, or the name of the folder of one's own images."""
        own = self.settings["DATASET"].get("DIR")
        return name_of(own) if self.dataset == "ImageDir" and own else self.cell.dataset or self.dataset

    @property
    def summary(self) -> str:
        """Trainer, dataset, protocol, shots, seed, accuracy and backbone in one line."""
        shots, accuracy = self.settings["DATASET"]["NUM_SHOTS"], self.metrics.get("accuracy")
        shots = "all training images" if shots < 1 else f"{shots} shot{'s' * (shots > 1)}"
        result = "no result yet" if accuracy is None else f"{accuracy:.1f} % on the {self.record['split']} split"
        protocol = f"{self.cell.tag} {self.cell.words}".replace("@", " ").replace("_", " ").strip()
        return "  ·  ".join([f"{self.trainer} on {self.dataset_name} {protocol}".strip(), shots,
                             f"seed {self.settings['SEED']}", result,
                             f"CLIP {self.settings['MODEL']['BACKBONE']['NAME']}"])

    @cached_property
    def learned(self) -> dict[str, Tensor]:
        """The state dict of the learned prompts."""
        return read_weights(str(self.checkpoint))["state_dict"]

    def holds(self, key: str) -> bool:
        """Whether something in the checkpoint is called so or, with a dot at its end, begins so."""
        return self._path.is_file() and any(name == key or key.endswith(".") and name.startswith(key)
                                            for name in self.learned)

    @property
    def checkpoint(self) -> Path:
        """Raises UserError where there is none, and says why as far as the folder tells."""
        if not self._path.is_file():
            raise UserError(self._no_checkpoint(self.folder / LEARNER))
        return self._path

    @property
    def _path(self) -> Path:
        return self.checkpoint_file(LEARNER, self.epoch)

    @property
    def learned_in(self) -> Run:
        """The run whose checkpoint this one was tested with: itself, unless it only tested.

        Raises:
            UserError: that run is not next to it any more.
        """
        named = self.flags.get("model_dir")
        if self.record.get("mode") != "eval-only" or not named or (self.folder / LEARNER).is_dir():
            return self
        if not (tested := self.tests):
            raise UserError(f"{self.folder} tested what the run .../{named} had learned, and that run is not next to "
                            "it. Name its folder instead.")
        epoch = self.epoch if self.epoch is not None else self.flags.get("load_epoch")
        return Run(tested.folder, epoch, self.root, self.plugins)

    def _no_checkpoint(self, folder: Path) -> str:
        saved = sorted(int(path.suffix.split("-")[-1]) for path in folder.glob("model.pth.tar-*"))
        if saved:
            return (f"{self.folder} has no checkpoint of epoch {self.epoch}; it has those of "
                    f"{', '.join(map(str, saved))}. Choose one of them with --epoch, or leave --epoch out.")
        if self.record.get("mode") == "eval-only":
            source = self.flags.get("model_dir", "the run given as --model-dir")
            return (f"{self.folder} tested what another run had learned, so it holds no prompts of its own. "
                    f"Name that run's folder: .../{source}.")
        why = "the run did not finish; continue it with the same command" if not self.record else \
            f"{self.trainer} may save no prompts, or the checkpoint was removed; run it again"
        return f"{self.folder} has no checkpoint ({folder.name}/model.pth.tar-<epoch>): {why}."

    @cached_property
    def classnames(self) -> list[str]:
        """As the run's classes.json or descriptions.json names them, or else its dataset.

        Raises:
            UserError: none of them says it.
        """
        names = self.classes.get("classnames", read_json(self.folder / "descriptions.json"))
        if names is None:
            try:
                return list(self.built_dataset.classnames)
            except UserError as error:
                raise UserError(f"{self.folder} has no {CLASSES}, as older runs have none, and its dataset does not "
                                f"say the classes either ({error}) Give them with --classes, in the order of their "
                                "labels.") from error
        names = list(names) if isinstance(names, (list, dict)) else []
        if not (names and all(isinstance(name, str) for name in names)):
            raise UserError(f"{self.folder / CLASSES} names no classes: \"classnames\" is a list of texts.")
        return names

    @cached_property
    def template(self) -> str | None:
        """The dataset's sentence; None stands for CLIP's general one."""
        if not self.classes and not self.settings["DATASET"].get("TEMPLATE"):
            try:
                return getattr(self.built_dataset, "template", None)
            except UserError as error:
                logger.warning("%s has no %s, as older runs have none, and its dataset is not here to say its sentence "
                               "(%s). The general one is taken where a method needs it.", self.folder, CLASSES, error)
        return self.classes.get("template") or self.settings["DATASET"].get("TEMPLATE") or None

    @property
    def backbone(self) -> dict:
        """{"name", "sha256"} as recorded, or {}."""
        return self.classes.get("backbone") or self.record.get("backbone") or {}

    @property
    def weights(self) -> set[str]:
        """Every sha256 of CLIP's weights that the folder names; more than one does not happen unless it was changed."""
        return {told["sha256"] for told in (self.classes.get("backbone"), self.record.get("backbone"))
                if isinstance(told, dict) and told.get("sha256")}

    def register(self) -> list:
        """Have datasets and trainers registered; returns their modules.

        Raises:
            UserError: this checkout does not define the run's trainer; code that a run folder names is not run unasked.
        """
        modules = register(self.plugins)
        if self.trainer not in TRAINER_REGISTRY:
            named = self.flags.get("plugin", [])
            way = " ".join(f"--plugin {name}" for name in named) or "--plugin FILE, the file that defines it"
            raise UserError(f"{self.folder} was trained with {self.trainer!r}, which this checkout does not define. "
                            f"Code that a run folder names is not run unasked; if you trust it, add {way}.")
        return modules

    @cached_property
    def cfg(self):
        """The run's config. Settings that have since gone from the code are left out, with a warning."""
        cfg, gone = get_cfg_default(), []
        extend_all(cfg, self.register())
        if self.plugins:
            _complete(cfg, self.settings)
        merge_opts(cfg, [word for pair in _known(self.settings, cfg, gone) for word in pair])
        if gone:
            logger.warning("%s names settings that this code does not know: %s", self.folder / "config.yaml",
                           ", ".join(gone))
        root = Path(self.root or cfg.DATASET.ROOT)
        below = ROOT / root                  # a run of the checkout may have named it relative to that
        cfg.DATASET.ROOT = str(below if not root.exists() and below.is_dir() else root)
        cfg.freeze()
        return cfg

    @cached_property
    def built_dataset(self):
        """The dataset, which has to be on this machine."""
        return build_dataset(self.cfg)


def choose(names: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Places of the wanted classes among `names`; letter case and `_` do not matter.

    Raises:
        UserError: a class that is not there, with the nearest one.
    """
    plain = {name.replace("_", " ").casefold(): place for place, name in enumerate(names)}
    places = []
    for name in wanted:
        key = name.replace("_", " ").casefold()
        if key not in plain:
            raise UserError(f"There is no class {name!r} among the {len(names)} of this run.{nearest(name, names)} "
                            'Names with spaces need quotes: --classes "red striped circle".')
        places.append(plain[key])
    return list(dict.fromkeys(places))


def _no_run(folder: Path) -> str:
    rule = "A run is named by its folder, which holds config.yaml and the prompts"
    if not folder.exists():
        return f"{rule}; {folder} does not exist. Sweeps end with the list of their run folders."
    below = [str(path.parent) for path in sorted(folder.rglob("config.yaml"))[:3]]
    ways = f"Runs below it: {', '.join(below)}." if below else "Sweeps end with the list of their run folders."
    return f"{rule}; {folder} holds none. {ways}"


def _complete(cfg: CfgNode, settings: dict) -> None:
    """Keys that cfg lacks, with the run's values: the plugin's repository made them elsewhere (--extend-cfg)."""
    for key, value in settings.items():
        if key not in cfg:
            cfg[key] = CfgNode(value) if isinstance(value, dict) else value
        elif isinstance(cfg[key], CfgNode) and isinstance(value, dict):
            _complete(cfg[key], value)


def _known(settings: dict, cfg, gone: list[str], prefix: str = "") -> Iterator[tuple[str, object]]:
    """The settings as (KEY, value), except those that cfg lacks: unless they are RETIRED, they are added to `gone`."""
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if key not in cfg:
            if (name, value) not in RETIRED.items():
                gone.append(name)
        elif isinstance(cfg[key], dict) and isinstance(value, dict):
            yield from _known(value, cfg[key], gone, f"{name}.")
        else:
            yield name, value
