"""A cell: one run as it is meant, before it is made; train.py writes it into inputs.json and results.json.

Imports nothing heavy.
"""
from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from dassl.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"
ZEROSHOT, OWN = "ZeroshotCLIP", "ImageDir"      # the trainer of CLIP as it is; the dataset of one's own images
HALVES = ("base", "new")
SHOTS, CLASSES, EPOCHS = "DATASET.NUM_SHOTS", "DATASET.SUBSAMPLE_CLASSES", "OPTIM.MAX_EPOCH"
CORRUPTIONS, TASKS = "DATASET.CORRUPTIONS", "TRAIN.TASKS"
TOGETHER, START = "DATASET.TASKS", "MODEL.INIT_WEIGHTS"
SOURCES, LEFT_OUT, FINAL = "DATASET.SOURCE_DOMAINS", "DATASET.TARGET_DOMAINS", "TEST.FINAL_MODEL"
NAMES = ("gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur",
         "snow", "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression")
                                        # of datasets.corruptions, in its order; it is slow to import
MEANT = "DASSL_CELL"                # set by a sweep for its runs: the cell, as JSON
NO_EFFECT = frozenset({                 # options that change no result, only what is kept or shown of it
    "TRAIN.CHECKPOINT_FREQ", "TRAIN.CHECKPOINT_SECONDS", "TRAIN.PRINT_FREQ", "TRAIN.TRACKERS", "VERBOSE", "PRINT_FREQ",
    "DATALOADER.NUM_WORKERS", "TEST.PER_CLASS_RESULT", "TEST.COMPUTE_CMAT", "TEST.SAVE_LOGITS"})
_NEED_TRAINING = {"TEST.FINAL_MODEL", "TEST.NO_TEST"}       # of TEST, what a training has to know
_STORED = {"trainer": str, "dataset": str, "shots": (int, type(None)), "seed": int, "config": str, "recipe": str,
           "protocol": str, "tag": str, "opts": dict, "user_opts": dict, "variant": str, "variant_opts": dict}
_SUFFIX_LENGTH = 80


class RecipeError(UserError):
    """A recipe, dataset or config that does not exist or is not well formed; the message says the way out."""


@dataclass(frozen=True)
class Cell:
    """One run: everything that tools/train.py needs but the roots.

    Attributes:
        dataset: of configs/datasets, or one with its test images under a corruption, "digits:fog:5".
        shots: None where nothing is drawn: zero-shot, or trained on all images.
        config: name of the trainer yaml; "" where nobody knows it.
        config_file: the yaml; None for a cell that was read from a run.
        opts: KEY -> value of recipe, shots, epochs and user, later ones already winning.
        user_opts: the user's part of `opts`; they give the run a folder of its own. All options of a run that was made
            without a recipe.
        train_on: the cell whose prompts are tested here without training, or None.
        start_from: the cell whose prompts training starts from here, or None.
        load_epoch: epoch of that cell's checkpoint.
        published: percent, or None where unknown; published_from says where it was read and with what reserve.
        recipe, protocol: names of those that it was made by; "" for a run made by hand.
        tag: what the protocol makes of it, as part of the folder's name: "@base", "@new", "@transfer", "@from_shapes",
            "@tasks5".
        words: the names and the template that the user gave to images of their own, as part of the folder's name.
        seeds: all that were asked for together with it; () where nobody said.
        variant: its name in an ablation ("CE + inter"), and the options that make it, which `user_opts` has too.
        own: flags that name images of one's own, instead of a yaml of configs/datasets.
        code: flags that name code of others: --plugin, --extend-cfg, --replace, --allow-cpu-shim.
    Raises:
        RecipeError: OPTIM.MAX_EPOCH is not a whole number.
    """

    trainer: str
    dataset: str
    shots: int | None
    seed: int
    config: str
    config_file: Path | None = None
    opts: dict = field(default_factory=dict)
    user_opts: dict = field(default_factory=dict)
    train_on: Cell | None = None
    start_from: Cell | None = None
    load_epoch: int | None = None
    published: float | None = None
    published_from: str = ""
    recipe: str = ""
    protocol: str = ""
    tag: str = ""
    variant: str = ""
    variant_opts: dict = field(default_factory=dict)
    words: str = ""
    seeds: tuple[int, ...] = ()
    own: tuple[str, ...] = ()
    code: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _ = self.max_epoch

    @property
    def max_epoch(self) -> int | None:
        """OPTIM.MAX_EPOCH; None where the options leave it to the yaml."""
        value = self.opts.get(EPOCHS)
        if value is not None and not re.fullmatch(r"\d+", str(value)):
            raise RecipeError(f"{EPOCHS} must be a whole number of epochs, got {value!r} for {self.trainer} on "
                              f"{self.dataset}. Give one, e.g. {EPOCHS} 50.")
        return None if value is None else int(value)

    @property
    def classes(self) -> str:
        """"base" or "new" for half of the classes, "" for all."""
        return half if (half := str(self.opts.get(CLASSES, ""))) in HALVES else ""

    @property
    def source(self) -> str:
        """The other dataset whose prompts are tested, or ""."""
        other = self.train_on is not None and self.trainer != ZEROSHOT and self.train_on.dataset != self.dataset
        return self.train_on.dataset if other else ""

    @property
    def kind(self) -> tuple:
        """What the seeds of one row have in common."""
        return (self.dataset, self.trainer, self.config, self.words, self.shots, self.classes or self.tag, self.source,
                tuple(sorted((key, str(value)) for key, value in self.options.items())))

    @property
    def options(self) -> dict:
        """Those of the user that can change a result."""
        return {key: value for key, value in self.user_opts.items() if key not in NO_EFFECT}

    @property
    def for_the_test(self) -> dict:
        """Those of `options` that a training knows nothing of."""
        return {key: value for key, value in self.options.items()
                if key.startswith("TEST.") and key not in _NEED_TRAINING}

    @property
    def folder(self) -> Path:
        """Relative to OUTPUT; it names every option of the user, so no result replaces another one."""
        shots = "" if self.shots is None else f"_{self.shots}shots"
        words = f"-{self.words}" if self.words else ""
        variant = f"{self.config}{shots}{self.tag}{words}{_suffix(self.options)}"
        return Path(self.dataset.replace(":", "_"), self.trainer, variant, f"seed{self.seed}")

    def arguments(self, root: str, output: str) -> list[str]:
        """Arguments of tools/train.py; files of the checkout are named relative to it."""
        opts = dict(self.opts)
        if self.shots is not None:
            opts = {SHOTS: self.shots, **opts}
        if self.start_from is not None:
            opts[START] = str(Path(output, self.start_from.folder))
        flags = ["--root", root, *self.code, "--trainer", self.trainer, "--seed", str(self.seed),
                 *(self.own or ("--dataset-config-file",
                                str(_within(CONFIGS / "datasets" / f"{_yaml_of(self.dataset)}.yaml")))),
                 "--config-file", str(_within(self.config_file)), "--output-dir", str(Path(output, self.folder))]
        if self.train_on is not None:
            flags += ["--eval-only", "--model-dir", str(Path(output, self.train_on.folder))]
            flags += ["--load-epoch", str(self.load_epoch)] if self.load_epoch else []
        return flags + [str(part) for pair in opts.items() for part in pair]

    def as_dict(self) -> dict:
        """What is stored of it: plain data, without places on this machine."""
        return {**{name: getattr(self, name) for name in _STORED}, "words": self.words, "seeds": list(self.seeds),
                "train_on": self.train_on.as_dict() if self.train_on else None,
                "start_from": self.start_from.as_dict() if self.start_from else None}

    @classmethod
    def from_dict(cls, stored: object) -> Cell | None:
        """The cell that `as_dict` stored; None for anything else. Fields that are not known are left out."""
        if not isinstance(stored, Mapping) or any(not isinstance(stored.get(name), kind) or
                                                  isinstance(stored[name], bool) for name, kind in _STORED.items()):
            return None
        trained = cls.from_dict(stored["train_on"]) if stored.get("train_on") is not None else None
        start = cls.from_dict(stored["start_from"]) if stored.get("start_from") is not None else None
        seeds = stored.get("seeds", [])
        try:
            return cls(**{name: stored[name] for name in _STORED}, train_on=trained, start_from=start,
                       words=str(stored.get("words", "")),
                       seeds=tuple(s for s in seeds if type(s) is int) if isinstance(seeds, list) else ())
        except RecipeError:
            return None


def plain(dataset: str) -> str:
    """"digits:fog:5" -> "digits"; of tasks that are learned together the first."""
    return dataset.partition(":")[0].partition("+")[0]


def _yaml_of(dataset: str) -> str:
    return "tasks" if "+" in dataset else plain(dataset)


def together(dataset: str) -> dict[str, str]:
    """The options that make one dataset of "digits+shapes"; {} for a single one.

    Raises:
        RecipeError: no such dataset, or one named twice.
    """
    from dassl.names import nearest
    from tools.runs.by_hand import dataset_names

    names, known = dataset.split("+"), dataset_names()
    if len(names) < 2:
        return {}
    for i, name in enumerate(names):
        if name not in known or name == "tasks":
            raise RecipeError(f"There is no dataset {name!r} in configs/datasets.{nearest(name, known)} Tasks that are "
                              "learned together are written digits+shapes.")
        if name in names[:i]:
            raise RecipeError(f"{dataset} names {name} twice. Name each dataset once.")
    return {TOGETHER: str(tuple(known[name] for name in names))}


def corrupted(datasets: list[str]) -> dict[str, str]:
    """The option that puts test images under the corruptions of ["digits:fog:5", ...]; {} for none.

    Raises:
        RecipeError: no such corruption, or a severity that is not 1 to 5.
    """
    from dassl.names import nearest

    kinds = [dataset.partition(":")[2] for dataset in datasets]
    for kind in kinds:
        name, _, severity = kind.partition(":")
        if name not in NAMES or severity not in ("1", "2", "3", "4", "5"):
            raise RecipeError(f"A corruption is written NAME:SEVERITY, with a severity of 1 to 5, got {kind!r}."
                              f"{nearest(name, NAMES) if name not in NAMES else ''} Known: {', '.join(NAMES)}.")
    return {CORRUPTIONS: f"({' '.join(f'{kind!r},' for kind in kinds)})"} if kinds else {}


@lru_cache
def domains_of(dataset: str) -> tuple[str, ...]:
    """The domains of a dataset, as its yaml lists them; () where it has none."""
    import yaml

    path = CONFIGS / "datasets" / f"{plain(dataset)}.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return tuple((content.get("DATASET") or {}).get("SOURCE_DOMAINS") or ())


def _within(path: Path) -> Path:
    """Relative to the checkout where it lies inside."""
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def _suffix(user_opts: dict) -> str:
    """"-OPTIM.LR=0.1", readable and safe in a file name; long ones end in a hash of the whole."""
    if not user_opts:
        return ""
    whole = ",".join(f"{key}={value}" for key, value in sorted(user_opts.items()))
    safe = re.sub(r"[^\w.,=+-]", "_", whole)
    if safe != whole or len(safe) > _SUFFIX_LENGTH:
        safe = f"{safe[:_SUFFIX_LENGTH]}-{sha256(whole.encode()).hexdigest()[:8]}"
    return f"-{safe}"
