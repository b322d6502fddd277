"""What is asked about an item of a dataset, where that is not one label of one image."""
from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """Attributes:
        reader: the `DatasetWrapper` that reads an item into {"img", "label", ...}: an image and its mask, a clip of
            frames ...; None reads an image and its class.
        evaluator: its registered name; its first value is the primary measure, which `test()` returns. "" takes
            TEST.EVALUATOR.
    """

    reader: type | None = None
    evaluator: str = ""
