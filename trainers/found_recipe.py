"""The network that a search found, as a recipe and a trainer yaml by which a sweep trains it from scratch."""
from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import yaml

from dassl.files.whole import write_whole
from trainers.parts.subnet import PARTS, Dims

RECIPE = "found.yaml"

logger = logging.getLogger(__name__)


def as_recipe(trainer, dims: Dims) -> None:
    """Write found.yaml, a recipe by which a sweep trains the network of these dimensions, and its trainer yaml.

    That yaml is named after the dimensions, so that runs of different networks have folders of their own.
    """
    cfg, cell, folder = trainer.cfg, trainer.recorded.get("cell", {}), Path(trainer.output_dir)
    own = {part.upper(): str(tuple(row)) for part, row in zip(PARTS, dims, strict=True)}
    name = f"subnet_{hashlib.sha256(repr(dims).encode()).hexdigest()[:6]}.yaml"
    optim = {key: cfg.OPTIM[key] for key in ("NAME", "WEIGHT_DECAY", "LR_SCHEDULER", "WARMUP_EPOCH",
                                             "WARMUP_TYPE", "WARMUP_MIN_LR", "WARMUP_CONS_LR")}
    optim["LR"] = trainer.second_rate(trainer.options)
    loader = {"TRAIN_X": {"BATCH_SIZE": cfg.DATALOADER.TRAIN_X.BATCH_SIZE},
              "TEST": {"BATCH_SIZE": cfg.DATALOADER.TEST.BATCH_SIZE}, "NUM_WORKERS": cfg.DATALOADER.NUM_WORKERS}
    settings = {"DATALOADER": loader, "INPUT": {"TRANSFORMS": list(cfg.INPUT.TRANSFORMS)}, "OPTIM": optim,
                "MODEL": {"BACKBONE": {"NAME": cfg.MODEL.BACKBONE.NAME}},
                "TRAINER": {"SUBNET": {**own, **{key: trainer.options[key] for key in (
                    "DROPOUT", "DROP_PATH", "MIXUP", "CUTMIX", "SMOOTHING", "HEAD")}}}}
    source = (f"found by NOAH on {cfg.DATASET.NAME}, seed {cfg.SEED}: {trainer.parts.count():,} parameters of at "
              f"most {trainer.options.LIMIT:,}")
    recipe = {"trainer": "SubNet", "source": source, "config": name, "seeds": [1, 2, 3],
              "shots": [max(cfg.DATASET.NUM_SHOTS, 1)], "epochs": trainer.max_epoch - trainer.first_epochs,
              "opts": {"DATASET.NUM_SHOTS": cfg.DATASET.NUM_SHOTS} if cfg.DATASET.NUM_SHOTS < 1 else {},
              "datasets": {cell["dataset"]: {}} if cell.get("dataset") else {}}
    for file, content in ((name, settings), (RECIPE, recipe)):
        write_whole(folder / file, yaml.safe_dump(content, sort_keys=False, width=110))
    logger.info("The found network is the recipe %s", folder / RECIPE)
