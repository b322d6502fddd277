"""The model of a run, built again and holding what the run learned."""
from __future__ import annotations

import shlex
from pathlib import Path

from dassl.engine import TRAINER_REGISTRY, TrainerX, build_trainer
from dassl.utils import UserError
from tools import inputs, train

from .run import Run


def rebuild(run: Run, exact: bool = False) -> TrainerX:
    """The run's trainer with its checkpoint loaded, in evaluation mode; its dataset has to be on this machine.

    A run that only tested has no prompts of its own and takes those of the run that it tested.

    Args:
        exact: in float32, whatever the run trained with.
    """
    folder, epoch = _learned_in(run) if run.record.get("mode") == "eval-only" else (run.folder, run.epoch)
    if folder == run.folder and epoch is not None:
        _ = run.checkpoint                      # tells in our words what is missing
    trainer = build_trainer(_in_float32(run.cfg) if exact else run.cfg)
    trainer.load_model(str(folder), epoch)
    trainer.set_model_mode("eval")
    return trainer


def split_of(run: Run, trainer: TrainerX):
    """Name of the split that the run was tested on, and its loader.

    Raises:
        UserError: the dataset has no such split.
    """
    split = run.record.get("split", run.cfg.TEST.SPLIT)
    loader = trainer.val_loader if split == "val" else trainer.test_loader
    if loader is None:
        raise UserError(f"{run.dataset} has no {split} split to test on.")
    return split, loader


def _learned_in(run: Run) -> tuple[Path, int | None]:
    """Folder and epoch of the prompts that a run tested, wherever the folder of all results lies now."""
    flags = (inputs.read(run.folder) or {}).get("flags", {})
    given = flags.get("model_dir")                                 # its last four parts, <dataset>/.../seed<n>
    for base in (*run.folder.absolute().parents, Path.cwd()) if given else ():
        if (base / given / "config.yaml").is_file():
            return base / given, flags.get("load_epoch")
    then = train.parser().parse_args(shlex.split(run.record["command"])[2:])
    return Path(then.model_dir or run.folder), then.load_epoch


def _in_float32(cfg):
    section = getattr(TRAINER_REGISTRY.get(cfg.TRAINER.NAME), "section", "")
    if not section or "PREC" not in cfg.TRAINER[section]:
        return cfg
    cfg = cfg.clone()
    cfg.defrost()
    cfg.TRAINER[section].PREC = "fp32"
    cfg.freeze()
    return cfg
