"""Parameters of the towers themselves that a method learns: which, and under what names they are saved."""
from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from clip import FrozenCLIP

TOWERS = {"both": r"(visual\.)?", "vision": r"visual\.", "text": ""}
NORMS = r"(transformer\.resblocks\.\d+\.)?ln_\w+\.(weight|bias)"            # of the blocks and around them
BIASES = r"transformer\.resblocks\.\d+\.([a-z]\w*\.)*\w*bias|ln_\w+\.bias"


def release(clip: FrozenCLIP, which: str, towers: str = "both") -> nn.ParameterDict:
    """Release the parameters of one or both towers whose names match `which`, see `FrozenCLIP.trainable`.

    Raises:
        InputError: an image tower that is no vision transformer.
    """
    if towers != "text":
        clip.require_tokens("What tunes the blocks of the image tower")
    return clip.trainable(rf"{TOWERS[towers]}({which})")


def saved_names(tower: Iterable[str]) -> dict[str, str]:
    """For `PromptedModel`'s `saved_as`: the names that the parameters have in the towers."""
    return {f"tower.{name}": name.replace("/", ".") for name in tower}
