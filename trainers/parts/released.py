"""Parameters of the towers themselves that a method learns."""
from __future__ import annotations

from torch import nn

from clip import FrozenCLIP

TOWERS = {"both": r"(visual\.)?", "vision": r"visual\.", "text": ""}
NORMS = r"(transformer\.resblocks\.\d+\.)?ln_\w+\.(weight|bias)"            # of the blocks and around them
BIASES = r"transformer\.resblocks\.\d+\.([a-z]\w*\.)*\w*bias|ln_\w+\.bias"


def release(clip: FrozenCLIP, which: str, towers: str = "both") -> nn.ParameterDict:
    """Release the parameters of one or both towers whose names match `which`, see `FrozenCLIP.trainable`.

    Raises:
        InputError: an image tower that is not a vision transformer.
    """
    if towers != "text":
        clip.require_tokens("What tunes the blocks of the image tower")
    return clip.trainable(rf"{TOWERS[towers]}({which})")
