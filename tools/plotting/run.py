"""A run folder as a figure reads it: what was run, what came out, what was learned."""
from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import yaml
from torch import Tensor

from dassl.config import RETIRED, CfgNode, get_cfg_default, merge_opts
from dassl.data.datasets import build_dataset
from dassl.engine import TRAINER_REGISTRY
from dassl.engine.plugins import extend_all
from dassl.utils import UserError, load_checkpoint, nearest
from dassl.utils.classes_file import FILE as CLASSES
from dassl.utils.torchtools import BEST
from tools import inputs, train

logger = logging.getLogger(__name__)

LEARNER = "prompt_learner"              # the model whose checkpoint holds all that was learned


class Run:
    """A folder that tools/train.py wrote.

    Args:
        folder: with config.yaml, as a run leaves it.
        epoch: whose checkpoint is read; None takes the one that the run was tested with: the best on the validation
            split where one was kept, else the last.
        root: folder of the datasets, where they have moved since; "" is the run's own.
        plugins: files or modules that define the run's trainer or dataset, where these are none of this checkout.
    Attributes:
        settings: config.yaml, plain. record: results.json, {} where the run has not finished.
    Raises:
        UserError: it is no run folder.
    """

    def __init__(self, folder: str | Path, epoch: int | None = None, root: str = "", plugins: Sequence[str] = ()):
        self.folder, self.epoch, self.root, self.plugins = Path(folder), epoch, root, list(plugins)
        if not (self.folder / "config.yaml").is_file():
            raise UserError(_no_run(self.folder))
        self.settings = yaml.safe_load((self.folder / "config.yaml").read_text(encoding="utf-8"))
        self.record = inputs.read_json(self.folder / "results.json") or {}

    @property
    def trainer(self) -> str:
        return self.settings["TRAINER"]["NAME"]

    @property
    def dataset(self) -> str:
        return self.settings["DATASET"]["NAME"]

    @property
    def summary(self) -> str:
        """Trainer, dataset, shots, seed, accuracy and backbone in one line."""
        shots, accuracy = self.settings["DATASET"]["NUM_SHOTS"], self.record.get("metrics", {}).get("accuracy")
        shots = "all training images" if shots < 1 else f"{shots} shot{'s' * (shots > 1)}"
        result = "no result yet" if accuracy is None else f"{accuracy:.1f} % on the {self.record['split']} split"
        return "  ·  ".join([f"{self.trainer} on {self.dataset}", shots, f"seed {self.settings['SEED']}", result,
                             f"CLIP {self.settings['MODEL']['BACKBONE']['NAME']}"])

    @cached_property
    def learned(self) -> dict[str, Tensor]:
        """The state dict of the learned prompts."""
        return load_checkpoint(str(self.checkpoint))["state_dict"]

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
        folder = self.folder / LEARNER
        pointer, best = folder / "checkpoint", folder / BEST
        if self.epoch is not None:
            return folder / f"model.pth.tar-{self.epoch}"
        return best if best.is_file() or not pointer.is_file() else folder / pointer.read_text(encoding="utf-8").strip()

    def _no_checkpoint(self, folder: Path) -> str:
        saved = sorted(int(path.suffix.split("-")[-1]) for path in folder.glob("model.pth.tar-*"))
        if saved:
            return (f"{self.folder} has no checkpoint of epoch {self.epoch}; it has those of "
                    f"{', '.join(map(str, saved))}. Choose one of them with --epoch, or leave --epoch out.")
        if self.record.get("mode") == "eval-only":
            source = (inputs.read(self.folder) or {}).get("flags", {}).get("model_dir", "the run given as --model-dir")
            return (f"{self.folder} tested what another run had learned, so it holds no prompts of its own. "
                    f"Name that run's folder: .../{source}.")
        why = "the run did not finish; continue it with the same command" if not self.record else \
            f"{self.trainer} may save no prompts, or the checkpoint was removed; run it again"
        return f"{self.folder} has no checkpoint ({folder.name}/model.pth.tar-<epoch>): {why}."

    @cached_property
    def classnames(self) -> list[str]:
        """As the run's descriptions.json or classes.json names them, or else its dataset."""
        described = inputs.read_json(self.folder / "descriptions.json")
        told = (inputs.read_json(self.folder / CLASSES) or {}).get("classnames")
        return list(described or told or self.built_dataset.classnames)

    def register(self) -> list:
        """Have datasets and trainers registered; returns their modules.

        Raises:
            UserError: the run's trainer is none of this checkout; code that a run folder names is not run unasked.
        """
        modules = train.register(self.plugins)
        if self.trainer not in TRAINER_REGISTRY:
            named = (inputs.read(self.folder) or {}).get("flags", {}).get("plugin", [])
            way = " ".join(f"--plugin {name}" for name in named) or "--plugin FILE, the file that defines it"
            raise UserError(f"{self.folder} was made by the trainer {self.trainer!r}, which is none of this checkout. "
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
        below = inputs.ROOT / root                  # a run of the checkout may have named it relative to that
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


def is_run(folder: Path) -> bool:
    return (folder / "config.yaml").is_file()


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
