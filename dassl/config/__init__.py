"""The configuration: Dassl's keys with their defaults, and merging that explains what is wrong."""
from __future__ import annotations

from .cfgnode import CfgNode, merge_file, merge_opts, known_keys
from .defaults import defaults
from .other_trainers import add_other_trainers

__all__ = ["CfgNode", "clean_cfg", "get_cfg_default", "known_keys", "merge_file", "merge_opts"]


def get_cfg_default() -> CfgNode:
    """A fresh config with the keys and values of Dassl 0.6.3."""
    cfg = defaults()
    add_other_trainers(cfg)
    return cfg


def clean_cfg(cfg: CfgNode, trainer: str) -> None:
    """Takes the sections of other trainers out of `cfg.TRAINER`, so that a printed config is short.

    Args:
        trainer: name; its section, if it has one, is the name in upper case.
    """
    for key in list(cfg.TRAINER):
        if key not in ("NAME", trainer.upper()):
            del cfg.TRAINER[key]
