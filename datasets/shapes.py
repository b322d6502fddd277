"""Procedural shapes whose classes are combinations of shape, colour and texture, and five shifted variants.

A third of the classes are combinations that the pretraining of the embedded CLIP never drew. A variant has the same
images, split and classes under one shift, so a model trained on `Shapes` can be tested on each.
"""

from collections.abc import Iterator

import numpy as np

from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from datasets.embedded import SHAPES_PER_CLASS, held_out_combinations, shape_combinations, shape_images, write_once
from datasets.few_shot import few_shot_splits
from datasets.own_descriptions import Descriptions, shape_descriptions
from datasets.rendering import COLOURS, SHAPES, TEXTURES


def class_name(combination: tuple[int, int, int]) -> str:
    """The words of a (shape, colour, texture) index triple, such as "red striped circle"."""
    shape, colour, texture = combination
    return f"{tuple(COLOURS)[colour]} {TEXTURES[texture]} {SHAPES[shape]}"


@DATASET_REGISTRY.register()
class Shapes(DatasetBase):
    """48 classes with 20 train, 10 val and 50 test images of 64 x 64 pixels each, on white, grey or black.

    `attributes` maps each class name to its shape, colour and texture; `held_out` names the classes whose combination
    the embedded CLIP has not seen; `causes` are what the descriptions cse_1, cse_2 and cse_3 are about.
    """

    dataset_dir = "shapes"
    template = "a photo of a {}."
    descriptions_stem = "shapes"
    causes = ("shape", "colour", "texture")
    shift = "none"

    def __init__(self, cfg):
        combinations = shape_combinations()
        folder = write_once(cfg.DATASET.ROOT, self.dataset_dir, self._draw)
        self.attributes = {
            class_name((s, c, t)): {"shape": SHAPES[s], "colour": tuple(COLOURS)[c], "texture": TEXTURES[t]}
            for s, c, t in combinations
        }
        self.held_out = [class_name(combination) for combination in held_out_combinations()]
        parts, first = [], 0
        for count in SHAPES_PER_CLASS.values():
            parts.append(
                [
                    Datum(impath=str(folder / _file(combination, i)), label=label, classname=class_name(combination))
                    for label, combination in enumerate(combinations)
                    for i in range(first, first + count)
                ]
            )
            first += count
        train, val, test = few_shot_splits(self, cfg, *parts)
        super().__init__(train_x=train, val=val, test=test)

    @property
    def descriptions(self) -> Descriptions:
        """Sentences about the classes: des, dist, and those of their shape (cse_1), colour (cse_2), texture (cse_3)."""
        return shape_descriptions(self.attributes)

    def _draw(self) -> Iterator[tuple[str, np.ndarray]]:
        for combination in shape_combinations():
            for i, image in enumerate(shape_images(combination, self.shift)):
                yield _file(combination, i), image


@DATASET_REGISTRY.register()
class ShapesNoise(Shapes):
    """Strong pixel noise."""

    dataset_dir, shift = "shapes_noise", "noise"


@DATASET_REGISTRY.register()
class ShapesClutter(Shapes):
    """Small coloured pieces of other shapes around and behind the shape."""

    dataset_dir, shift = "shapes_clutter", "clutter"


@DATASET_REGISTRY.register()
class ShapesSketch(Shapes):
    """Outlines in the class's colour on white paper, the texture as pale hatching."""

    dataset_dir, shift = "shapes_sketch", "sketch"


@DATASET_REGISTRY.register()
class ShapesRecoloured(Shapes):
    """Backgrounds in one of the other label colours; the shape itself is unchanged."""

    dataset_dir, shift = "shapes_recoloured", "recoloured"


@DATASET_REGISTRY.register()
class ShapesLowContrast(Shapes):
    """All contrast shrunk towards mid grey."""

    dataset_dir, shift = "shapes_lowcontrast", "lowcontrast"


def _file(combination: tuple[int, int, int], number: int) -> str:
    return f"{class_name(combination).replace(' ', '_')}/{number:02d}.png"
