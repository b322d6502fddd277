"""Config defaults, and merging that names what is wrong."""
from yacs.config import CfgNode

from .defaults import complete, get_cfg_default
from .merge import RETIRED, UnknownKey, merge_file, merge_opts, with_values

__all__ = ["RETIRED", "CfgNode", "UnknownKey", "clean_cfg", "complete", "get_cfg_default", "merge_file",
           "merge_opts", "with_values"]


def clean_cfg(cfg: CfgNode, trainer: str) -> None:
    """Drop the sections of TRAINER that belong to other trainers, in place."""
    for key in list(cfg.TRAINER):
        if key not in ("NAME", trainer.upper()):
            del cfg.TRAINER[key]
