"""A run's accuracy at shares between the towers that training started from and those it ended with."""
from __future__ import annotations

from collections.abc import Sequence

from dassl.config import with_values
from dassl.engine import build_trainer
from dassl.utils import UserError, nearest
from tools import status
from tools.runs.by_hand import dataset_names, stem_of
from tools.runs.cell import corrupted, plain
from tools.runs.run import Run
from trainers._base import PromptTrainer
from trainers._build import build_to_train
from trainers.parts.averaging import interpolate
from trainers.parts.heads import ZeroShotHead

from .tested import loader_of, logits_of, rebuild

SHARES = tuple(i / 10 for i in range(11))


def curve(run: Run, targets: Sequence[str] = (), shares: Sequence[float] = SHARES, split: str = "test") -> dict:
    """What interpolation.json then holds.

    Returns:
        shares: S of them, ascending. accuracy: {dataset: S values, percent}, the source first. images: {dataset: N}.
        source, split, epoch. kept_share: of the fine-tuned weights in the checkpoint that the run was tested with.
    Raises:
        UserError: a share outside 0 to 1, no fine-tuned towers, an unknown dataset or one of other classes.
    """
    if wrong := [share for share in shares if not 0 <= share <= 1]:
        raise UserError(f"--shares must be from 0 to 1, got {wrong[0]:g}.")
    shares = sorted(set(shares))
    targets = {name: target_cfg(run, name) for name in targets}
    trainer = rebuild(run)
    learner, kept = towers_of(trainer), trainer.options.get("ALPHA", 1.0)
    kept = kept if run.epoch in (None, trainer.cfg.OPTIM.MAX_EPOCH) else 1.0            # earlier ones are not mixed
    first = build_to_train(type(trainer), trainer.cfg, trainer.classes, trainer.device)[0].prompt_learner
    start, saved = (weights_of(owner) for owner in (first, learner))
    interpolate(learner, start, saved, 1 / kept)
    end = weights_of(learner)
    source, names = stem_of(run.dataset), list(trainer.classes.names)
    accuracy: dict[str, list[float]] = {}
    images: dict[str, int] = {}
    for dataset, cfg in {source: None, **targets}.items():
        if cfg is not None:
            trainer.close_loaders()
            trainer = build_trainer(cfg)
        if (bound := trainer.bound_to_classes(trainer.options)) and list(trainer.classes.names) != names:
            raise UserError(f"{run.folder} learned {bound}, so it can be tested on its own classes alone, and "
                            f"{dataset} has others: {', '.join(trainer.classes.names[:3])} ...")
        accuracy[dataset] = []
        for share in shares:
            status.say(f"{dataset}: share {share:g}")
            interpolate(trainer.model.prompt_learner, start, end, share)
            right, images[dataset] = counted(trainer, dataset, split)
            accuracy[dataset].append(100 * right / images[dataset])
    trainer.close_loaders()
    status.say("")
    return {"shares": shares, "source": source, "split": split, "epoch": run.epoch, "kept_share": kept,
            "images": images, "accuracy": accuracy}


def towers_of(trainer):
    """What the trainer learned. Raises UserError unless it is weights of the towers, with a value before training."""
    learner = trainer.model.prompt_learner if isinstance(trainer, PromptTrainer) else {}
    if others := [type(brick).__name__ for name, brick in learner.items() if name != "tower"
                  and not isinstance(brick, ZeroShotHead) and any(True for _ in brick.parameters())]:
        raise UserError(f"{type(trainer).__name__} learned a {others[0]}, of which zero-shot CLIP has none, so there "
                        "is nothing to mix it with. Take a run that fine-tuned weights of the towers alone, such as "
                        "WiSEFT or FLYP.")
    if "tower" not in learner:
        raise UserError(f"{type(trainer).__name__} left the weights of the towers as they were, so there is no curve "
                        "between them. Take a run that fine-tuned them, such as WiSEFT or FLYP.")
    return learner


def weights_of(learner) -> dict:
    return {name: value.detach().clone() for name, value in learner.named_parameters()}


def target_cfg(run, name: str):
    """The run's config on another dataset. Raises UserError for an unknown one."""
    known = dataset_names()
    if plain(name) not in known:
        raise UserError(f"--targets names {name!r}, which is none of configs/datasets.{nearest(plain(name), known)}")
    corrupted([name] if ":" in name else [])
    return with_values(run.cfg, {"DATASET.NAME": known[plain(name)],
                                 "DATASET.CORRUPTIONS": (name.partition(":")[2],) if ":" in name else ()})


def counted(trainer, dataset: str, split: str) -> tuple[int, int]:
    """Right answers on a split, and all of them."""
    trainer.set_model_mode("eval")
    logits, labels = logits_of(trainer, loader_of(trainer, split, dataset), split)
    return int((logits.argmax(1) == labels).sum()), len(labels)
