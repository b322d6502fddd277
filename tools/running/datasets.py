"""Datasets by the names that a user has for them, and one built without a trainer. Imports nothing heavy at first."""
from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from tools import train
from tools.checkout import register
from tools.runs import inputs
from tools.runs.by_hand import dataset_names, stem_of
from tools.runs.cell import CONFIGS, LEFT_OUT, SHOTS, ZEROSHOT, domains_of

OWN, TOGETHER = ("ImageDir", "ImageCaptions", "VideoDir"), "Tasks"      # a user's own images, pairs and clips


def yaml_names() -> dict[str, str]:
    """{file name in configs/datasets: registered name}, but for your own images and tasks learned together."""
    return {stem: name for stem, name in dataset_names().items() if name not in (*OWN, TOGETHER)}


def registered(name: str) -> str:
    """The registered name of a dataset, or the path of your own.

    Raises:
        UserError: neither; names the nearest.
    """
    from dassl.data.datasets import DATASET_REGISTRY
    from dassl.utils.registry import UnknownName, nearest

    known = yaml_names()
    if name in known or name in DATASET_REGISTRY or os.path.exists(name):
        return known.get(name, name)
    raise UnknownName(f"There is no dataset {name!r}.{nearest(name, {*known, *DATASET_REGISTRY.registered_names()})} "
                      f"Known: {', '.join(known)}.")


def own(name: str, template: str = "", classnames: str = "") -> tuple[str, ...]:
    """The flags of tools/train.py for a folder or list of one's own images; () for the name of a dataset."""
    names = dataset_names()
    if name in (*names, *names.values()) or not (os.sep in name or "." in name or Path(name).is_dir()):
        return ()
    return inputs.own_flags(name, template, classnames)


def build(name: str, root: str | Path, shots: int = -1, seed: int = 1, template: str = "", classnames: str = "",
          plugins: Sequence[str] = ()):
    """The dataset as a training would see it; of one with domains, the last is the one that is left out.

    Args:
        name: in configs/datasets, or registered, or the path of a folder or list of one's own images.
        shots: training images per class, drawn with `seed`; -1: all.
        template, classnames: of one's own images. plugins: files or modules that define the dataset.
    Raises:
        UserError: an unknown dataset, or one that is not on this machine.
    """
    register(list(plugins))
    from dassl.data.datasets import build_dataset

    stem, flags, opts = stem_of(name), own(name, template, classnames), [SHOTS, str(shots)]
    if not flags and stem in dataset_names():
        flags = ("--dataset-config-file", str(CONFIGS / "datasets" / f"{stem}.yaml"))
        opts += [LEFT_OUT, str(domains[-1:])] if (domains := domains_of(stem)) else []
    elif not flags:
        opts += ["DATASET.NAME", registered(name)]
    words = ["--root", str(root), "--seed", str(seed), "--trainer", ZEROSHOT, *flags,
             *(word for plugin in plugins for word in ("--plugin", plugin)), *opts]
    return build_dataset(train.setup_cfg(train.parser().parse_args(words)))
