"""What a config may not ask of a method, and errors of towers and bricks as errors of the user's."""
from __future__ import annotations

import contextlib
import logging
import math
import sys
from collections.abc import Iterator, Sequence

import torch

from clip import FrozenCLIP, InputError
from clip.precision import ONEDNN
from clip.templates import DEFAULT
from dassl.config import CfgNode, get_cfg_default
from dassl.config.checks import LARGEST_NUMBER
from dassl.utils import UserError
from dassl.utils.registry import nearest
from trainers._memory import is_out_of_memory
from trainers._precision import PRECISIONS
from trainers.method import POSITIVE, Method
from trainers.seen import CHOICES

NOT_NEGATIVE = ("CHECKPOINT_SECONDS", "MAX_TOKENS", "CYCLIP_IN_MODAL", "CYCLIP_CROSS_MODAL", "FEATURES_MB")  # TRAIN
LARGEST = 4096                  # of a method's whole numbers, most of them sizes, where it does not say otherwise
logger = logging.getLogger(__name__)


@contextlib.contextmanager
def refusal_as_user_error() -> Iterator[None]:
    """Converts InputError to UserError inside."""
    try:
        yield
    except InputError as error:
        raise UserError(str(error)) from error


@contextlib.contextmanager
def as_user_error() -> Iterator[None]:
    """Converts InputError to UserError inside, and running out of memory too."""
    try:
        with refusal_as_user_error():
            yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(f"There is not enough memory to build the model ({str(error).splitlines()[0]}). Use a smaller "
                        "backbone, fewer learned tokens or fewer classes, or free memory that other programs hold."
                        ) from error


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
    for key, value in options.items():
        for number in _listed(value):
            if isinstance(number, (int, float)) and not isinstance(number, bool):
                most = LARGEST if isinstance(number, int) else math.inf
                check_number(f"TRAINER.{method.section}.{key}", number, *method.bounds.get(key, (-math.inf, most)))
    for key in ("TEMPLATE", "TEMPLATES"):
        for text in _listed(options.get(key, "")):
            if text != "" and text not in method.named_templates and not _is_template(text):
                raise UserError(f"TRAINER.{method.section}.{key} must have one {{}} for the class name, as in "
                                f"\"{DEFAULT}\", got {text!r}.")
    if cfg.INPUT.NO_TRANSFORM:
        raise UserError(f"{method.__name__} takes tensors, and INPUT.NO_TRANSFORM leaves images as files hold them. "
                        "Leave it out; INPUT.TRANSFORMS chooses what changes them.")
    if ("normalize" in cfg.INPUT.TRANSFORMS) != method.normalised:
        rule = 'gives CLIP normalised images; add "normalize" to' if method.normalised else \
            'changes pixels in [0, 1] and normalises the image after that; take "normalize" out of'
        raise UserError(f"{method.__name__} {rule} INPUT.TRANSFORMS, which is {tuple(cfg.INPUT.TRANSFORMS)}.")


def _listed(value: object) -> Sequence:
    return value if isinstance(value, (list, tuple)) else [value]


def _is_template(text: object) -> bool:
    return isinstance(text, str) and text.count("{}") == 1


def not_at_default(method: type[Method], options: CfgNode | None) -> str:
    """" Not at their defaults: TRAINER.L2P.TOP 4096.", to follow what a brick says of a value; "" where all are.

    A brick knows no key, and what it refuses is mostly what somebody has set.
    """
    extend = getattr(sys.modules[method.__module__], "extend_cfg", None)
    if not options or extend is None:
        return ""
    extend(usual := get_cfg_default())
    usual = usual.TRAINER.get(method.section, {})
    changed = [f"TRAINER.{method.section}.{key} {value!r}" for key, value in options.items()
               if key != "PREC" and usual.get(key) != value]
    return f" Not at {'its default' if len(changed) == 1 else 'their defaults'}: {', '.join(changed)}." if changed \
        else ""


def check_number(key: str, value: float, least: float = -math.inf, most: float = math.inf) -> None:
    """Raises UserError for a number out of bounds, or too large for float32 or NaN."""
    least, most = max(least, -LARGEST_NUMBER), min(most, LARGEST_NUMBER)
    if not least <= value <= most:
        low = "above 0" if least == POSITIVE else f"at least {least:g}"
        rule = low if value < least else f"at most {most:g}" if value > most else "a number"
        raise UserError(f"{key} must be {rule}, got {value}.")


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
