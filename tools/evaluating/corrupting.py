"""A run's test images under corruptions, and its mean corruption error.

Source: Benchmarking Neural Network Robustness to Common Corruptions (Hendrycks and Dietterich, ICLR 2019): the error
under a corruption, summed over five severities, as a share of a reference's; AlexNet's errors on ImageNet are
hendrycks/robustness's.
"""
from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import torch.nn.functional as F

from clip import encode_texts, load_clip
from dassl.config import with_values
from dassl.data import DataManager
from dassl.utils import UserError
from dassl.utils.registry import nearest
from datasets.corruptions import NAMES
from trainers.parts.prompted_model import PromptedModel
from trainers.under_attack import Attackable

from .measure import Images

ALEXNET = dict(zip(NAMES, (88.6428, 89.4468, 92.2640, 81.9880, 82.6268, 78.5948, 79.8360, 86.6816, 82.6572, 81.9324,
                           56.4592, 85.3204, 64.6056, 71.7840, 60.6500), strict=True))      # percent
SEVERITIES = (1, 2, 3, 4, 5)


def chosen(words: list[str]) -> list[str]:
    """"all", names, and NAME:SEVERITY -> NAME:SEVERITY, all five severities of a name alone."""
    found = []
    for word in NAMES if words == ["all"] else words:
        name, colon, severity = word.partition(":")
        if name not in NAMES:
            raise UserError(f"There is no corruption {name!r}.{nearest(name, NAMES)} There are {', '.join(NAMES)}, and "
                            "all.")
        if colon and severity not in map(str, SEVERITIES):
            raise UserError(f"A corruption is NAME, or NAME:SEVERITY with a severity from 1 to 5, got {word!r}.")
        found += [word] if colon else [f"{name}:{severity}" for severity in SEVERITIES]
    return list(dict.fromkeys(found))


def measure(model: Attackable, kinds: list[str], split: str, limit: int | None, reference: str,
            former: dict) -> Iterator[dict]:
    """After each kind: the accuracies so far, and "mce" of the corruptions of which all five severities are there.

    Args:
        limit: how many images under each corruption; None: all.
        reference: "alexnet" or "zeroshot", zero-shot CLIP of the same backbone on the same images.
        former: what was yielded for the same images before; kept where it has the same reference.
    """
    trainer, zero_shot = model.trainer, _zero_shot(model) if reference == "zeroshot" else None
    said = "zero-shot CLIP of the same backbone on the same images" if zero_shot else "AlexNet on ImageNet-C"
    same = former.get("reference") == said and "of_reference" in former
    ours, theirs = (dict(former[part]) if same else {} for part in ("accuracy", "of_reference"))
    for kind in kinds:
        cfg = with_values(trainer.cfg, {"DATASET.CORRUPTIONS": (kind,)})
        images = Images(model, getattr(DataManager(cfg), f"{split}_loader"), limit)
        ours[kind] = images.accuracy()
        if zero_shot:
            theirs[kind] = images.accuracy(answer=zero_shot)
        mce, each = mean_corruption_error(*({kind: 100 - value for kind, value in accuracies.items()}
                                            for accuracies in (ours, theirs)))
        yield {"accuracy": dict(ours), "of_reference": dict(theirs), "mce": mce, "ce": each, "reference": said,
               "images": len(images)}


def mean_corruption_error(errors: dict[str, float], reference: dict[str, float]) -> tuple[float | None, dict]:
    """mCE, percent, and the CE of each corruption; None where no corruption is there at all five severities.

    Args:
        errors: percent, by NAME:SEVERITY. reference: likewise; empty: AlexNet's mean errors on ImageNet-C.
    """
    sums, counts = defaultdict(float), defaultdict(int)
    for kind, error in errors.items():
        sums[name := kind.partition(":")[0]] += error
        counts[name] += 1
    each = {}
    for name in [name for name in sums if counts[name] == len(SEVERITIES)]:
        below = 5 * ALEXNET[name] if not reference else sum(reference[f"{name}:{s}"] for s in SEVERITIES)
        if below == 0:
            raise UserError(f"The reference makes no error under {name}, so that no share of it can be said. Take more "
                            "images.")
        each[name] = 100 * sums[name] / below
    return (sum(each.values()) / len(each) if each else None), each


def _zero_shot(model: Attackable):
    """Images in [0, 1] to logits of CLIP as it was before any training."""
    trainer = model.trainer
    clip = load_clip(trainer.cfg.MODEL.BACKBONE.NAME, trainer.device)
    text = encode_texts(clip, trainer.classes.sentences())
    zero_shot = PromptedModel(clip, text=text, takes_pixels=True).to(trainer.device).eval()
    side = clip.image_size
    return lambda pixels: zero_shot(pixels if pixels.shape[-1] == side else
                                    F.interpolate(pixels, side, mode="bicubic").clamp(0, 1)).logits
