"""Validation and test images of any dataset under DATASET.CORRUPTIONS; training images stay as they are.

Source: hendrycks/robustness ca36008: ImageNet-C is made of the middle 224 pixels of images whose short side has 256.
"""
from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from PIL import Image

from dassl.data.datasets import DatasetBase, Datum
from dassl.data.datasets.build import CHANGES
from dassl.utils import UserError
from dassl.utils.registry import nearest

from .corruptions import LARGE, NAMES, corrupt

_MARGIN = 256 / 224


class Corrupted(Datum):
    """An image that is seen `size` x `size` and corrupted, the same in every run.

    Args:
        item: the image as it is. domain: index among the corruptions of the run.
        name, severity: see `datasets.corruptions.corrupt`.
    """

    def __init__(self, item: Datum, domain: int, name: str, severity: int, size: int):
        super().__init__(item.impath, item.label, domain, item.classname)
        self.name, self.severity, self.size = name, severity, size

    def seen(self, image: Image.Image) -> Image.Image:
        short, S = min(image.size), self.size
        scale = (S * _MARGIN if S >= LARGE else S) / short
        image = image.resize([max(S, round(side * scale)) for side in image.size], Image.Resampling.BICUBIC)
        left, top = ((side - S) // 2 for side in image.size)
        file = "/".join(Path(self.impath).parts[-2:])
        seed = int(sha256(f"{file} {self.name} {self.severity}".encode()).hexdigest()[:8], 16)
        return corrupt(image.crop((left, top, left + S, top + S)), self.name, self.severity, seed)


def corrupt_tests(dataset: DatasetBase, cfg) -> None:
    """Put the dataset's validation and test images under each of DATASET.CORRUPTIONS, one domain after the other.

    Raises:
        UserError: no such corruption or severity, or one that is there twice.
    """
    chosen = tuple(cfg.DATASET.get("CORRUPTIONS", ()))
    kinds = [_parsed(text) for text in chosen]
    if twice := next((text for text in chosen if chosen.count(text) > 1), ""):
        raise UserError(f"DATASET.CORRUPTIONS has {twice} twice; each is a domain of its own.")
    if not kinds:
        return
    if dataset.task.reader is not None:
        raise UserError(f"DATASET.CORRUPTIONS changes images that have one label; {cfg.DATASET.NAME} asks something "
                        "else of them. Leave it out.")
    for split in ("_val", "_test"):
        if items := getattr(dataset, split):
            setattr(dataset, split, [Corrupted(item, domain, name, severity, cfg.INPUT.SIZE[0])
                                     for domain, (name, severity) in enumerate(kinds) for item in items])
    dataset.test_domains = chosen


def _parsed(text: str) -> tuple[str, int]:
    name, _, severity = str(text).partition(":")
    if name not in NAMES:
        raise UserError(f"There is no corruption {name!r}.{nearest(name, NAMES)} There are {', '.join(NAMES)}.")
    if severity not in list("12345"):
        raise UserError(f"A corruption must be written NAME:SEVERITY, with a severity from 1 to 5, as in {name}:3, got "
                        f"{text!r}.")
    return name, int(severity)


CHANGES["corruptions"] = corrupt_tests
