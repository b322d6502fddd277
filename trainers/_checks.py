"""What a config may not ask of a method."""
from __future__ import annotations

import logging

import torch

from clip import FrozenCLIP
from clip.precision import ONEDNN
from dassl.config import CfgNode
from dassl.utils import UserError
from dassl.utils.registry import nearest
from trainers._precision import PRECISIONS
from trainers.options import check_number, check_values
from trainers.seen import CHOICES

NOT_NEGATIVE = ("CHECKPOINT_SECONDS", "MAX_TOKENS", "CYCLIP_IN_MODAL", "CYCLIP_CROSS_MODAL", "FEATURES_MB")  # TRAIN
logger = logging.getLogger(__name__)


def check_options(method: type, cfg: CfgNode) -> None:
    """Raises UserError for a section or transforms that the method cannot use."""
    options = cfg.TRAINER[method.section] if method.section else {}
    if (prec := options.get("PREC", "fp32")) not in PRECISIONS:
        raise UserError(f"TRAINER.{method.section}.PREC must be one of {', '.join(PRECISIONS)}, got {prec!r}.")
    if empty := [key for key, value in options.items() if value is None]:
        raise UserError(f"TRAINER.{method.section}.{empty[0]} has no value (None). Leave it out for its default.")
    choice = str(cfg.TRAIN.get("ONEDNN", "auto"))
    if choice not in (*ONEDNN, "True", "False"):            # YAML reads on and off as the last two
        raise UserError(f"TRAIN.ONEDNN must be auto, on or off, got {choice!r}.{nearest(choice, ONEDNN)}")
    if (seen := cfg.TEST.get("SEEN_CLASSES", "auto")) not in CHOICES:
        raise UserError(f"TEST.SEEN_CLASSES must be auto, all or none, got {seen!r}.{nearest(str(seen), CHOICES)}")
    for key in NOT_NEGATIVE:
        check_number(f"TRAIN.{key}", cfg.TRAIN.get(key, 0), 0)
    check_values(method, options)
    if cfg.INPUT.NO_TRANSFORM:
        raise UserError(f"{method.__name__} takes tensors, and INPUT.NO_TRANSFORM leaves images as files hold them. "
                        "Leave it out; INPUT.TRANSFORMS chooses what changes them.")
    if ("normalize" in cfg.INPUT.TRANSFORMS) != method.normalised:
        rule = 'gives CLIP normalised images; add "normalize" to' if method.normalised else \
            'changes pixels in [0, 1] and normalises the image after that; take "normalize" out of'
        raise UserError(f"{method.__name__} {rule} INPUT.TRANSFORMS, which is {tuple(cfg.INPUT.TRANSFORMS)}.")


def check_images(method: type, clip: FrozenCLIP, cfg: CfgNode) -> None:
    """Raises UserError for an image size that does not fit the tower; warns of other statistics than its own."""
    size, side = tuple(cfg.INPUT.SIZE), clip.image_size
    if method.border and (len(set(size)) > 1 or not 0 < size[0] < side):
        raise UserError(f"{method.__name__} learns a border around a smaller square image in the {side} x {side} "
                        f"pixels of {clip.name}; INPUT.SIZE is {size}. Set it to the image's size, published as 6/7 of "
                        f"that: INPUT.SIZE \"({side * 6 // 7}, {side * 6 // 7})\".")
    if not method.border and set(size) != {side}:
        raise UserError(f"{clip.name} takes {side} x {side} images, and INPUT.SIZE is {size}. Set INPUT.SIZE "
                        f"\"({side}, {side})\" or choose another MODEL.BACKBONE.NAME.")
    mean, std = cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD
    if not torch.allclose(torch.tensor([*mean, *std]), torch.tensor([*clip.mean, *clip.std]), atol=1e-4):
        logger.warning("INPUT.PIXEL_MEAN %s and PIXEL_STD %s are not those %s was trained with: %s and %s",
                       mean, std, clip.name, clip.mean, clip.std)
