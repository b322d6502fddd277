"""Real handwritten digits that come with scikit-learn, and a low-contrast copy of them.

Source: Alpaydin & Kaynak, Optical Recognition of Handwritten Digits, UCI repository, 1998; its test part.
"""

from collections.abc import Iterator

import numpy as np

from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from datasets.embedded import SPLITS, digit_images, digit_splits, fade_digits, write_once
from datasets.few_shot import few_shot_splits
from datasets.own_descriptions import Descriptions, digit_descriptions

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@DATASET_REGISTRY.register()
class Digits(DatasetBase):
    """1,797 images of 8 x 8 pixels in ten classes; 719 train, 359 val, 719 test, split once and for all by class.

    `causes` are what the descriptions cse_1, cse_2 and cse_3 are about.
    """

    dataset_dir = "digits"
    template = "a photo of the digit {}."
    descriptions_stem = "digits"
    causes = ("form", "handwriting", "picture")

    def __init__(self, cfg):
        folder = write_once(cfg.DATASET.ROOT, self.dataset_dir, self._draw)
        _, labels = digit_images()
        parts = {
            split: [
                Datum(impath=str(folder / _file(i, labels[i])), label=int(labels[i]), classname=WORDS[labels[i]])
                for i in index
            ]
            for split, index in digit_splits().items()
        }
        train, val, test = few_shot_splits(self, cfg, *(parts[split] for split in SPLITS))
        super().__init__(train_x=train, val=val, test=test)

    @property
    def descriptions(self) -> Descriptions:
        """Sentences about the classes: des, dist, and those of form (cse_1), handwriting (cse_2), picture (cse_3)."""
        return digit_descriptions(WORDS)

    def _draw(self) -> Iterator[tuple[str, np.ndarray]]:
        images, labels = digit_images()
        for i, image in enumerate(self._render(images)):
            yield _file(i, labels[i]), image

    def _render(self, images: np.ndarray) -> np.ndarray:
        return images


@DATASET_REGISTRY.register()
class DigitsLowContrast(Digits):
    """The same images and split in pale grey on grey with a little noise; always the same."""

    dataset_dir = "digits_lowcontrast"

    def _render(self, images: np.ndarray) -> np.ndarray:
        return fade_digits(images)


def _file(number: int, label: int) -> str:
    return f"{WORDS[label]}/{number:04d}.png"
