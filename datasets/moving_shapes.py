"""Clips of one moving shape whose class is the motion, so that a single frame cannot tell it."""

from collections.abc import Iterator

import numpy as np

from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from dassl.data.task import Task
from datasets.clips import ClipReader
from datasets.embedded import write_once
from datasets.few_shot import few_shot_splits
from datasets.rendering import COLOURS, GREYS, SHAPES, coverage, sample_fields, shape_fields

MOTIONS = ("moving left", "moving right", "moving up", "moving down", "growing", "shrinking", "turning clockwise",
           "turning counterclockwise")
CLIPS_PER_CLASS = {"train": 40, "val": 20, "test": 50}
FRAMES, SIZE = 16, 32
TURNING = [SHAPES.index(name) for name in ("square", "triangle", "star", "cross", "heart", "crescent")]
SPEED = 0.75  # of the canvas, or of the range of sizes, that a clip passes through
TURN = np.pi / 20  # radians from frame to frame: far below half the symmetry of a star


@DATASET_REGISTRY.register()
class MovingShapes(DatasetBase):
    """Eight motions with 40 train, 20 val and 50 test clips each: animated PNGs of 16 frames of 32 x 32 pixels.

    Clip i has the same shape, colours and start in every class, and place, size and angle are uniform at every moment,
    so that only the order of frames tells classes apart. What leaves the canvas comes in at the other side, and what
    has grown to the largest size begins again at the smallest.
    """

    dataset_dir = "moving_shapes"
    template = "a photo of a shape that is {}."
    task = Task(reader=ClipReader)

    def __init__(self, cfg):
        folder = write_once(cfg.DATASET.ROOT, self.dataset_dir, self._draw)
        parts, first = [], 0
        for count in CLIPS_PER_CLASS.values():
            parts.append([Datum(impath=str(folder / _file(name, i)), label=label, classname=name)
                          for label, name in enumerate(MOTIONS) for i in range(first, first + count)])
            first += count
        train, val, test = few_shot_splits(self, cfg, *parts)
        super().__init__(train_x=train, val=val, test=test)

    def _draw(self) -> Iterator[tuple[str, np.ndarray]]:
        for name in MOTIONS:
            for i, clip in enumerate(moving_shapes(name, sum(CLIPS_PER_CLASS.values()))):
                yield _file(name, i), clip


def moving_shapes(motion: str, count: int) -> np.ndarray:
    """(count, FRAMES, SIZE, SIZE, 3) uint8, always the same ones."""
    rng, n = np.random.RandomState(20), count
    phase = rng.uniform(size=(4, n, 1)) + np.zeros(FRAMES)  # of x, y, size and angle; (4, n, T)
    time = np.arange(FRAMES)
    axis, sign = {"left": (0, -1), "right": (0, 1), "up": (1, -1), "down": (1, 1), "growing": (2, 1),
                  "shrinking": (2, -1), "clockwise": (3, 1), "counterclockwise": (3, -1)}[motion.split()[-1]]
    step = TURN / (2 * np.pi) if axis == 3 else SPEED / (FRAMES - 1)
    phase[axis] += sign * step * time
    x, y, size, angle = (part.reshape(-1, 1, 1) for part in phase % 1)  # (n * T, 1, 1)
    line = (np.arange(SIZE) + 0.5) * (2 / SIZE) - 1
    u, v = _around(line[None, None, :] - (2 * x - 1)), _around(line[None, :, None] - (2 * y - 1))
    scale, angle = 0.18 * 3 ** size, 2 * np.pi * angle
    cos, sin = np.cos(angle), np.sin(angle)
    u, v = (cos * u + sin * v) / scale, (cos * v - sin * u) / scale  # (n * T, S, S)
    index = np.repeat(rng.choice(TURNING, n), FRAMES)
    distance = np.where(np.maximum(abs(u), abs(v)) < 1, sample_fields(shape_fields(), index, u, v), -1.0)
    inside = coverage(distance * scale, 3.0 / SIZE)[..., None]
    colour = np.array(list(COLOURS.values()))[rng.randint(len(COLOURS), size=n)]
    ground = np.array(list(GREYS.values()))[rng.randint(len(GREYS), size=n)][:, None]
    colour, ground = (np.repeat(value, FRAMES, axis=0)[:, None, None, :] for value in (colour, ground))
    clips = ground + inside * (colour - ground)
    return np.round(255 * np.clip(clips, 0, 1)).astype(np.uint8).reshape(n, FRAMES, SIZE, SIZE, 3)


def _around(distance: np.ndarray) -> np.ndarray:
    """A distance on a canvas whose sides are joined, in [-1, 1)."""
    return (distance + 1) % 2 - 1


def _file(motion: str, number: int) -> str:
    return f"{motion.replace(' ', '_')}/{number:03d}.png"
