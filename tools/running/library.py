"""For notebooks and programs: train a run, load one, look at a dataset, all runs as a table."""
from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

from dassl.errors import UserError
from tools import train
from tools.checkout import default_folder, register, warn_of_hidden_packages
from tools.running import datasets
from tools.runs import inputs, published, recipe
from tools.runs.cell import CONFIGS, Cell
from tools.runs.folder import RunFolder
from tools.runs.index import index

if TYPE_CHECKING:
    import pandas

    from dassl.data.datasets import DatasetBase
    from tools.prediction.classifier import Classifier


class Result(RunFolder):
    """A finished run: `accuracy` (percent), `metrics`, `per_class`, `predictions`, `record`, `config`, `folder`."""

    def load(self, **options) -> Classifier:
        """What it learned, as a classifier; options as in `load`."""
        return load(self.folder, **options)

    def __repr__(self) -> str:
        return f"<Result: {self.cell.trainer} on {self.cell.dataset}, {self.record.score}, {self.folder}>"


def train_run(method: str | type, dataset: str, shots: int | None = 16, seed: int = 1, *, config: str = "",
              options: Mapping[str, object] | None = None, template: str = "", classnames: str = "",
              output: str | Path = "", data: str | Path = "", plugins: tuple[str, ...] = (),
              force: bool = False) -> Result:
    """Train and test one method on one dataset; a run that has finished with these settings is not made again.

    Without `config` the settings are those of the method's recipe, as in its script: folders, numbers and tables are
    the same. With `config` they are those of that yaml alone, as with tools/train.py.

    Args:
        method: a recipe or a registered trainer, "dapt" or "DAPT"; or a registered class of your own.
        dataset: name in configs/datasets, or the path of a folder or list of your own images.
        shots: training images per class; None: all, or none are drawn (zero-shot).
        config: a trainer yaml: a name in configs/trainers/<trainer>, "CoOp/tiny", or a path; needed without a recipe.
        options: config keys and values, {"OPTIM.MAX_EPOCH": 5}; they give the run a folder of its own.
        template, classnames: of your own images: sentence for class names, and a file of them.
        output: folder of all runs; default $OUTPUT, else output/ of the checkout, or here if pip installed it.
        data: folder of the datasets; default $DATA, else data/ of the checkout, or a cache folder if pip installed it.
        plugins: files or modules that define `method` or `dataset`.
        force: train again what has finished.
    Raises:
        dassl.utils.UserError: an unknown method, dataset, config or option; a folder with a run of other settings.
    """
    from tools.sweeping.cells import Planned

    if shots is not None and shots < 1:
        raise UserError(f"shots must be at least 1, or None for all images, got {shots}.")
    warn_of_hidden_packages()
    register(list(plugins))
    own = datasets.own(dataset, template, classnames)
    output = str(output or default_folder("output"))
    cell = _cell(method, inputs.own_name(output, dataset) if own else dataset, shots, seed, config,
                 {key: str(value) for key, value in (options or {}).items()}, own, plugins)
    planned = Planned(cell, str(data or default_folder("data")), output)
    if planned.state == "other" and not force:
        raise UserError("\n  ".join([f"{planned.folder} holds a run with other settings:", *planned.changes]) +
                        "\nPass force=True to replace it, or another output.")
    if planned.state != "finished" or force:
        arguments, environment = planned.launch()
        with mock.patch.dict(os.environ, environment):
            train.main(train.parser().parse_args(arguments))
    return Result(planned.folder)


def load(run: str | Path, **options) -> Classifier:
    """The classifier of a run folder; arguments as in `tools.predict.load`."""
    from tools import predict

    warn_of_hidden_packages()
    return predict.load(run, **options)


def dataset(name: str, *, shots: int = -1, seed: int = 1, template: str = "", classnames: str = "",
            data: str | Path = "", plugins: tuple[str, ...] = ()) -> DatasetBase:
    """A dataset with its splits `train_x`, `val` and `test`: lists of items with `impath`, `label` and `classname`.

    Args:
        name: in configs/datasets, or the path of a folder or list of your own images; of one with domains, the last
            is the test set.
        shots: training images per class, drawn with `seed`; -1: all.
        template, classnames, data, plugins: as in `train_run`.
    Raises:
        dassl.utils.UserError: an unknown dataset, or one that is not on this machine.
    """
    warn_of_hidden_packages()
    return datasets.build(name, data or default_folder("data"), shots, seed, template, classnames, plugins)


def runs(*folders: str | Path) -> pandas.DataFrame:
    """One row a run below `folders` (default: $OUTPUT, else output/); columns as in `tools.runs.index.COLUMNS`."""
    return index(*(folders or (default_folder("output"),)))


def _cell(method: str | type, dataset: str, shots: int | None, seed: int, config: str, options: dict[str, str],
          own: tuple[str, ...], plugins: tuple[str, ...]) -> Cell:
    from dassl.engine import TRAINER_REGISTRY

    known = {recipe.name: recipe for recipe in published.shipped()}
    wanted = method.__name__ if isinstance(method, type) else method
    found = known.get(wanted.lower()) or next((r for r in known.values() if r.trainer.lower() == wanted.lower()), None)
    trainer = found.trainer if found and not isinstance(method, type) else TRAINER_REGISTRY.canonical(wanted)
    TRAINER_REGISTRY.get(trainer)                           # an unknown one is refused with the nearest
    code = tuple(word for plugin in plugins for word in ("--plugin", plugin))
    if not config and found and found.trainer == trainer:
        return replace(found.cell(dataset, shots, seed, options, own=own), code=code)
    if not config:
        raise recipe.RecipeError(f"{trainer} has no recipe, so its settings must come from a yaml.\n"
                                 'Pass config, e.g. config="CoOp/tiny".')
    if "/" in config and not config.endswith((".yaml", ".yml")):
        config = str(CONFIGS / "trainers" / f"{config}.yaml")
    bare = recipe.Recipe("", {"trainer": trainer, "config": config, "shots": [shots] if shots else [], "datasets": {}})
    return replace(bare.cell(dataset, shots, seed, options, own=own), recipe="", protocol="", code=code)
