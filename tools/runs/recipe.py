"""Recipes: a paper's table as rows of configs/recipes, each cell of which expands to one tools/train.py command.

Imports nothing heavy, so that planning a sweep and showing its table take no time.
"""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from tools.runs import inputs
from tools.runs.cell import CONFIGS, EPOCHS, NO_EFFECT, ROOT, ZEROSHOT, Cell, RecipeError, corrupted, plain, together

__all__ = ["CONFIGS", "ROOT", "ZEROSHOT", "Cell", "Recipe", "RecipeError", "is_ours", "load_recipe", "nearest",
           "read_yaml", "zeroshot_cell"]

_RECIPE_KEYS = {"trainer", "paper", "source", "config", "seeds", "shots", "epochs", "opts", "published_from", "default",
                "datasets", "protocols"}
_PROTOCOL_KEYS = {"base2new": {"opts", "published", "published_from"},
                  "continual": {"reset"},
                  "incremental": set(),
                  "lodo": {"opts"},
                  "transfer": {"opts", "published", "published_from"},
                  "ablation": {"variants", "published", "published_from"}}
_ROW_KEYS = {"config", "epochs", "shots", "opts", "published", "published_from", "train_on", "source"}
_REQUIRED = {"trainer", "config", "seeds", "shots", "datasets"}
TRAINING_ONLY = ("OPTIM.", "TRAIN.", "TRAINER.", "DATALOADER.TRAIN_", "TEST.FINAL_MODEL")      # beginnings of keys
_YAML = (".yaml", ".yml")
_LIKE = {"shapes_domains": "shapes"}        # datasets that are run with another's settings, unless a recipe has a row


def nearest(name: str, known) -> str:
    """"Did you mean X?", or the known names where none is near."""
    from dassl import names

    return names.nearest(name, known := sorted(map(str, known))).strip() or f"Known: {', '.join(known)}."


@dataclass(frozen=True)
class Recipe:
    """A validated configs/recipes/<name>.yaml; `table` is its content, `folder` where it lies."""

    name: str
    table: dict
    folder: Path = CONFIGS / "recipes"

    @property
    def trainer(self) -> str:
        return self.table["trainer"]

    @property
    def datasets(self) -> list[str]:
        return list(self.table["datasets"])

    def row(self, dataset: str) -> dict:
        """The dataset's row, or the recipe's `default` for a dataset that only has a yaml of its own.

        Raises:
            RecipeError: neither the recipe nor configs/datasets knows the name.
        """
        dataset = plain(dataset)
        if dataset not in self.table["datasets"]:
            dataset = _LIKE.get(dataset, dataset)
        if dataset in self.table["datasets"]:
            return self.table["datasets"][dataset] or {}
        known = [path.stem for path in (CONFIGS / "datasets").glob("*.yaml")]
        if dataset not in known:
            raise RecipeError(f"There is no dataset {dataset!r} in configs/datasets. "
                              f"{nearest(dataset, {*known, *self.datasets})}")
        return self.table.get("default") or {}

    def main_datasets(self, shots: int | None) -> list[str]:
        """The paper's own datasets: rows without a config of their own that have this number of shots (None: any)."""
        rows = self.table["datasets"]
        return [d for d in rows if "config" not in (rows[d] or {})
                and (shots is None or shots in (rows[d] or {}).get("shots", self.table["shots"]))]

    def epochs(self, row: dict, shots: int | None) -> int | None:
        """Epochs of the row at `shots`; None, all images, counts as the most."""
        return _at(row.get("epochs", self.table.get("epochs")), shots)

    def protocol(self, name: str) -> dict:
        """What the recipe sets otherwise for "base2new", "transfer" (tests on other datasets) or "ablation".

        Raises:
            RecipeError: the method cannot be tested on classes that it was not trained on.
        """
        found = (self.table.get("protocols") or {}).get(name, {})
        if isinstance(found, str):
            raise RecipeError(f"{self.trainer} cannot run the protocol {name}: {found} Use --protocol fewshot.")
        return found

    @property
    def variants(self) -> dict[str, dict]:
        """Name -> the options that make it, of each line of the recipe's ablation; {} where it has none."""
        ablation = (self.table.get("protocols") or {}).get("ablation", {})
        return {} if isinstance(ablation, str) else ablation.get("variants", {})

    def cell(self, dataset: str, shots: int | None, seed: int, user_opts: dict | None = None,
             config: str | None = None, own: tuple[str, ...] = ()) -> Cell:
        """One cell.

        Args:
            user_opts: KEY -> value; they win over the recipe's.
            config: a trainer yaml instead of the row's: a name in configs/trainers/<trainer>, or a path.
            own: flags that name images of one's own, which are called `dataset` then.
        """
        row = self.table.get("default") or {} if own else self.row(dataset)
        user_opts = dict(user_opts or {})
        shots = shots if self.table["shots"] else None
        config_file = self.config_file(config or row.get("config", self.table["config"]))
        used = self._name_of(config_file)
        note = row.get("published_from", shots)
        sources = self.table.get("published_from") or {}
        common = {"trainer": self.trainer, "dataset": dataset, "shots": shots, "seed": seed, "config": used,
                  "config_file": config_file, "user_opts": user_opts, "own": own, "recipe": self.name,
                  "protocol": "fewshot", "words": inputs.words_of_flags(own),
                  "published": None if set(user_opts) - NO_EFFECT or set(":+") & set(dataset) else
                  self._published(row, shots, used),
                  "published_from": sources.get(note, sources.get(used, sources.get("all", "")))}
        if row.get("train_on"):
            source = self.cell(row["train_on"], shots, seed, user_opts, config)
            return Cell(**common, opts=source.opts, train_on=source, load_epoch=source.max_epoch)
        opts = {key: _at(value, shots) for key, value in {**self.table.get("opts", {}), **row.get("opts", {})}.items()}
        opts |= corrupted([dataset] if ":" in dataset else []) | together(dataset)
        if self.table["shots"] and (epochs := self.epochs(row, shots)) is not None:
            opts[EPOCHS] = epochs
        return Cell(**common, opts={**opts, **user_opts})

    def _published(self, row: dict, shots: int | None, used: str) -> float | None:
        """`published` of a row: a value, {shots: value} or, where there are several backbones, {config: either}."""
        published, by_config = row.get("published"), False
        if isinstance(published, dict) and all(isinstance(key, str) for key in published):
            published, by_config = published.get(used), True
        if not by_config and used != self._name_of(self.config_file(row.get("config", self.table["config"]))):
            return None
        return published.get(shots) if isinstance(published, dict) else published

    def config_file(self, config: str) -> Path:
        """Trainer yaml by its name in configs/trainers/<trainer>, or by its path from here, the checkout or the recipe.

        Raises:
            RecipeError: there is none.
        """
        if config.endswith(_YAML):
            found = [path for path in (inputs.existing(config), self.folder / config) if path.is_file()]
            if not found:
                raise RecipeError(f"There is no trainer yaml {config}, neither here nor next to the recipe "
                                  f"{self.name}. A name without .yaml is one of configs/trainers/{self.trainer}.")
            return found[0]
        folder = CONFIGS / "trainers" / self.trainer
        path = folder / f"{config}.yaml"
        if not folder.is_dir():
            raise RecipeError(f"The recipe {self.name} is for {self.trainer}; there is no configs/trainers/"
                              f"{self.trainer} to find {config!r} in. A recipe for a trainer of your own names its "
                              "yaml by a path, e.g. config: configs/trainers/CoOp/tiny.yaml; so does --config.")
        if not path.is_file():
            raise RecipeError(f"There is no config {config!r} in configs/trainers/{self.trainer}. "
                              f"{nearest(config, [p.stem for p in folder.glob('*.yaml')])}")
        return path

    def _name_of(self, config_file: Path) -> str:
        """What a run's folder calls its trainer yaml: "tiny", or "CoOp-tiny" for one that is not of this trainer."""
        path = config_file.absolute()
        return path.stem if path.parent == CONFIGS / "trainers" / self.trainer else f"{path.parent.name}-{path.stem}"


def _at(value, shots: int | None):
    """A value, or that of {shots: value}; between listed shots the one of the next smaller number counts."""
    if not isinstance(value, dict):
        return value
    listed = [s for s in sorted(value) if shots is None or s <= shots] or [min(value)]
    return value[listed[-1]]


def load_recipe(name: str) -> Recipe:
    """The recipe of that name in configs/recipes, or at that path.

    Raises:
        RecipeError: there is none, it is not valid YAML, or it has an unknown or a missing key.
    """
    path = Path(name) if name.endswith(_YAML) else CONFIGS / "recipes" / f"{name}.yaml"
    if not path.is_file():
        known = [p.stem for p in (CONFIGS / "recipes").glob("*.yaml")]
        raise RecipeError(f"There is no recipe {name!r} in configs/recipes. {nearest(name, known)} A trainer of your "
                          "own takes a recipe of your own, named by its path: a yaml of "
                          "{trainer: NAME, config: PATH.yaml, seeds: [1, 2, 3], shots: [16], datasets: {}}.")
    table = _mapping(path, "", read_yaml(path))
    if missing := _REQUIRED - set(table):
        raise RecipeError(f"{path} lacks {', '.join(sorted(missing))}.")
    _check_keys(path, "", table, _RECIPE_KEYS)
    for key, least in (("seeds", 0), ("shots", 1)):
        if not (isinstance(table[key], list) and all(type(n) is int and n >= least for n in table[key])):
            raise RecipeError(f"{path} has {key}: {table[key]}; that is a list of whole numbers, {least} or more.")
    protocols = _mapping(path, " in protocols", table.get("protocols") or {})
    _check_keys(path, " in protocols", protocols, set(_PROTOCOL_KEYS))
    for name, settings in protocols.items():
        where = f" in the protocol {name}"
        settings = {} if isinstance(settings, str) else _mapping(path, where, settings)
        _check_keys(path, where, settings, _PROTOCOL_KEYS[name])
        for dataset, values in (settings.get("published") or {}).items():
            wanted = len(settings.get("variants", {})) if name == "ablation" else 2
            if name != "transfer" and len(values) != wanted:
                raise RecipeError(f"{path} publishes {len(values)} values for {dataset} in the protocol {name}; "
                                  f"that takes {wanted}.")
    for dataset, row in {**_mapping(path, " in datasets", table["datasets"]), "default": table.get("default")}.items():
        where = f" in the row {dataset}"
        _check_keys(path, where, _mapping(path, where, row or {}), _ROW_KEYS)
    return Recipe(path.stem, table, path.parent)


def read_yaml(path: Path):
    """What a yaml holds; None where it is empty. Raises RecipeError: it is none."""
    try:
        return inputs.parse_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}," if mark else ""
        raise RecipeError(f"{path}{line} is not yaml: {getattr(error, 'problem', None) or error}. Fix it "
                          "there.") from error


def _mapping(path: Path, where: str, content) -> dict:
    if not isinstance(content, dict):
        held = "nothing" if content is None else repr(content)
        raise RecipeError(f"{path} takes KEY: VALUE lines{where} and has {held}. The recipes of configs/recipes show "
                          "how one is written.")
    return content


def zeroshot_cell(cell: Cell) -> Cell:
    """The zero-shot run above `cell` in the table: same dataset, backbone and images, nothing learned."""
    user_opts = {k: v for k, v in cell.user_opts.items() if not k.startswith(TRAINING_ONLY)}
    config = cell.config_file.stem
    if is_ours(cell.config_file) and (CONFIGS / "trainers" / ZEROSHOT / f"{config}.yaml").is_file():
        return load_recipe("zeroshot").cell(cell.dataset, None, 1, user_opts, config, cell.own)
    name = f"{cell.config_file.absolute().parent.name}-{config}"
    return Cell(ZEROSHOT, cell.dataset, None, 1, name, cell.config_file, user_opts, user_opts, own=cell.own,
                words=cell.words, recipe="zeroshot", protocol="fewshot")


def is_ours(config_file: Path) -> bool:
    """Whether a trainer yaml is one of configs/trainers."""
    return config_file.absolute().is_relative_to(CONFIGS / "trainers")


def _check_keys(path: Path, where: str, table: dict, known: set[str]) -> None:
    for key in table:
        if key not in known:
            raise RecipeError(f"{path} has an unknown key {key!r}{where}. {nearest(str(key), known)}")
