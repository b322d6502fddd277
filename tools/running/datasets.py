"""Datasets by the names that a user has for them, and one built without a trainer. Imports nothing heavy at first."""
from __future__ import annotations

import os
from pathlib import Path

from tools.checkout import register
from tools.runs.by_hand import dataset_names
from tools.runs.cell import domains_of

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


def build(name: str, root: Path):
    """The whole dataset, as a training would see it."""
    from dassl.config import get_cfg_default
    from dassl.data.datasets import DATASET_REGISTRY
    from dassl.engine.plugins import extend_all

    cfg = get_cfg_default()
    extend_all(cfg, register())
    known = name in DATASET_REGISTRY
    cfg.DATASET.ROOT, cfg.DATASET.NAME, cfg.DATASET.DIR = str(root), name if known else OWN[0], "" if known else name
    if domains := next((domains_of(stem) for stem, other in yaml_names().items() if other == name), ()):
        cfg.DATASET.TARGET_DOMAINS = domains[-1:]
    cfg.freeze()
    return DATASET_REGISTRY.get(cfg.DATASET.NAME)(cfg)
