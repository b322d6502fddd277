"""The model of a run, built again and holding what the run learned."""
from __future__ import annotations

import torch
from torch import Tensor

from dassl.engine import TrainerX, build_trainer
from dassl.engine.hooks import parallel
from dassl.utils import UserError
from tools.prediction.rebuild import in_float32
from tools.runs.run import Run


def rebuild(run: Run, exact: bool = False) -> TrainerX:
    """The run's trainer with its checkpoint loaded, in evaluation mode; its dataset has to be on this machine.

    A run that only tested has no prompts of its own and takes those of the run that it tested.

    Args:
        exact: in float32, whatever the run trained with.
    """
    learned = run.learned_in
    if learned is run and run.epoch is not None:
        _ = run.checkpoint                      # raises with the reason where it is missing
    trainer = build_trainer(in_float32(run.cfg) if exact else run.cfg)
    trainer.load_model(str(learned.folder), learned.epoch)
    trainer.set_model_mode("eval")
    return trainer


def split_of(run: Run, trainer: TrainerX):
    """Name of the split that the run was tested on, and its loader; raises as `loader_of`."""
    split = run.record.get("split", run.cfg.TEST.SPLIT)
    return split, loader_of(trainer, split, run.dataset_name)


def loader_of(trainer: TrainerX, split: str, dataset: str):
    """Raises UserError where the dataset has no such split."""
    if (loader := trainer.val_loader if split == "val" else trainer.test_loader) is None:
        raise UserError(f"{dataset} has no {split} split to test on.")
    return loader


@torch.no_grad()
def logits_of(trainer: TrainerX, loader, split: str) -> tuple[Tensor, Tensor]:
    """(N, C) float32 logits and (N,) labels of a split, on the CPU."""
    found = [((out[0] if isinstance(out, (tuple, list)) else out).float().cpu(), labels.cpu())
             for _, out, labels in parallel.answers(trainer, loader, f"{split} split")]
    logits, labels = (torch.cat(parts) for parts in zip(*found, strict=True))
    return logits, labels
