"""What a training starts from: the weights of another run, and the options that they were learned with."""
from __future__ import annotations

from pathlib import Path

import yaml

from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from dassl.engine.checkpoint_files import find_checkpoint
from dassl.utils import UserError

LEARNER = "prompt_learner"              # under which a run saves what it learned


def initial_weights(cfg: CfgNode) -> str:
    """The checkpoint that MODEL.INIT_WEIGHTS names, by itself or by its run folder; "" where nothing is named.

    Raises:
        UserError: neither is there.
    """
    path = cfg.MODEL.INIT_WEIGHTS
    if path and not Path(path).exists():
        raise UserError(f"MODEL.INIT_WEIGHTS must name a run folder or a checkpoint that exists, got {path}. A run's "
                        "folder is the one that holds results.json.")
    return find_checkpoint(path, LEARNER, [LEARNER]) if path else ""


def options_learned_with(checkpoint: str) -> CfgNode:
    """The options of the method whose run a checkpoint lies in, from its config.yaml; empty where there is none."""
    file = Path(checkpoint).parent.parent / "config.yaml"
    trainers = yaml.safe_load(file.read_text(encoding="utf-8")).get("TRAINER", {}) if file.is_file() else {}
    name = trainers.get("NAME", "")
    section = TRAINER_REGISTRY.get(name).section if name in TRAINER_REGISTRY else ""
    return CfgNode(trainers.get(section) or {})
