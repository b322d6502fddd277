"""A finished run as the teacher of another one."""
from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from clip import FrozenCLIP, encode_texts
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from dassl.engine.checkpoint_files import find_checkpoint, read_weights
from dassl.utils import UserError
from dassl.utils.classes_file import read_classes
from dassl.utils.tools import read_settings
from dassl.utils.torchtools import load_weights
from trainers._build import build_on, infer
from trainers.method import Method
from trainers.parts.classes import Classes

Teacher = tuple[Tensor, Callable[[Tensor], Tensor]]     # class features (C, D), unit norm; images to logits (B, C)
LEARNER = "prompt_learner"
logger = logging.getLogger(__name__)


def zero_shot_teacher(clip: FrozenCLIP, classes: Classes) -> Teacher:
    """Towers without prompts, in the dataset's sentence."""
    text = encode_texts(clip, classes.sentences())
    return text, lambda images: clip.scale * clip.encode_image(images) @ text.t()


def teacher_of(folder: str, clip: FrozenCLIP, classes: Classes, device: torch.device) -> Teacher:
    """What a run learned, for these classes.

    Args:
        folder: of the run: config.yaml, classes.json and checkpoints.
        clip: the student's; its images are given to both.
    Raises:
        UserError: no run of this kind; images of another size or other statistics; classes that it does not serve.
    """
    settings = read_settings(folder)
    if not settings:
        raise UserError(f"The teacher {folder or '(empty)'} is not a run folder: it has no config.yaml. "
                        "Give the folder of a finished run of tools/train.py.")
    cfg = CfgNode(settings)
    method = TRAINER_REGISTRY.get(cfg.TRAINER.NAME)
    if not issubclass(method, Method):
        raise UserError(f"The teacher {folder} is a run of {cfg.TRAINER.NAME}, which does not say how its model is "
                        "built. Take one of a method of this project.")
    options, told = cfg.TRAINER[method.section] if method.section else None, read_classes(folder)
    learned = told.get("classnames") or []
    if (bound := method.bound_to_classes(options)) and learned != list(classes.names):
        raise UserError(f"The teacher {folder} holds {bound}, for other classes than the student's: {learned[:3]} ... "
                        f"against {list(classes.names[:3])} ...")
    seen = [name in learned for name in classes.names]
    if learned and not any(seen):
        logger.warning("The teacher %s was trained on none of the student's classes: it has %s ..., the student %s ...",
                       folder, ", ".join(learned[:3]), ", ".join(classes.names[:3]))
    model, mixed = build_on(method, cfg, Classes(classes.names, classes.template, classes.describe, seen), device)
    if method.learns != "nothing":
        path = find_checkpoint(str(Path(folder)), LEARNER, [LEARNER])
        load_weights(model.prompt_learner, read_weights(path)["state_dict"], path)
    model.eval().requires_grad_(False)
    own = model.clip
    if (own.image_size, tuple(own.mean), tuple(own.std)) != (clip.image_size, tuple(clip.mean), tuple(clip.std)):
        raise UserError(f"The teacher's {own.name} takes images of {own.image_size} pixels with mean {own.mean}, the "
                        f"student's {clip.name} of {clip.image_size} with {clip.mean}.")
    text = None if model.is_conditional else model.text_features()
    if text is None or text.dim() != 2:
        raise UserError(f"The teacher {folder} has no single feature of each class, which a student could be compared "
                        "with. Take a method that compares by cosines with one, such as MaPLe.")
    return text.clone(), lambda images: infer(method, model, mixed, images, options).float().clone()
