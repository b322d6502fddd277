"""In which precision the frozen towers compute, and by which library; a CPU takes for a large model what is faster."""
from __future__ import annotations

import logging

import torch
import torch.nn.functional as F
from torch import Tensor

from clip import FrozenCLIP
from clip.products import by_onednn, onednn_gain, seconds
from dassl.optim.loss_scaler import LossScaler
from dassl.utils import distributed
from dassl.utils.logger import CONSOLE

PRECISIONS = ("fp32", "fp16", "amp", "bf16")
DTYPES = {"fp16": torch.float16, "amp": torch.float16, "bf16": torch.bfloat16}

_LARGE = 512                             # width of a text tower from which precision matters to who waits
_WORTH_IT = 1.3                          # times as fast

logger = logging.getLogger(__name__)


class MixedPrecision:
    """Reduced precision for the towers of one trainer, under autocast; what is learned and the losses stay float32.

    Args:
        clip: on its device.
        asked: one of PRECISIONS.
        half_towers: also keep the towers' matrices in it, and scale the loss if it is float16.
    Attributes:
        name: what `asked` means on that device, see `precision_on`.
        onednn: whether float32 products of the towers are oneDNN's, see `clip.products`.
        scaler: of the loss; passes everything through unless it is needed.
    """

    def __init__(self, clip: FrozenCLIP, asked: str, half_towers: bool):
        self.clip, self.device_type = clip, clip.logit_scale.device.type
        self.name = precision_on(clip, asked)
        self.dtype = DTYPES.get(self.name)
        scaled = half_towers and self.dtype == torch.float16
        self.scaler = LossScaler(enabled=scaled)
        if half_towers and self.dtype is not None:
            clip.half_weights(self.dtype)
        self.use_onednn(self.dtype is None and onednn_pays(clip))

    def use_onednn(self, onednn: bool) -> None:
        """Whether products of the towers are oneDNN's; a run that goes on takes what it took before."""
        self.onednn = onednn and torch.backends.mkldnn.is_available()       # it may go on on another machine
        self.clip.multiply_by_onednn(self.onednn)

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device_type, dtype=self.dtype, enabled=self.dtype is not None)


def precision_on(clip: FrozenCLIP, asked: str) -> str:
    """What `asked` means on CLIP's device: itself but for float16 (fp16, amp) on a CPU, which computes it slowly.

    There it is bf16 for a large model, if that is measured to be faster than float32, and else fp32. An embedded or
    small model has the same precision on every CPU.
    """
    if clip.logit_scale.device.type == "cuda" or asked in ("fp32", "bf16"):
        return asked
    if clip.text_width < _LARGE:
        return "fp32"
    gain = distributed.from_first(bf16_gain())
    name = "bf16" if gain >= _WORTH_IT else "fp32"
    logger.info("PREC %s is %s on this CPU, which multiplies matrices %.1f times as fast in bfloat16 as in float32%s",
                asked, name, gain, "; PREC fp32 has float32" if name == "bf16" else "", extra=CONSOLE)
    return name


def bf16_gain(tokens: int = 394, width: int = 768) -> float:
    """How many times as fast a product of a ViT-B's block is in bfloat16 as in float32, by the faster library.

    Takes about a tenth of a second.
    """
    x, weight = torch.ones(tokens, width), torch.ones(4 * width, width)
    in_float32 = [F.linear, by_onednn] if onednn_gain() else [F.linear]
    return min(_least(product, x, weight) for product in in_float32) / \
        _least(F.linear, x.bfloat16(), weight.bfloat16())


def _least(product, x: Tensor, weight: Tensor) -> float:
    return min(seconds(product, x, weight) for _ in range(4))


def onednn_pays(clip: FrozenCLIP) -> bool:
    """Whether float32 products of a large model on a CPU are measured to be clearly faster by oneDNN.

    Never in a run that is to give the same bits every time (`--deterministic`): a measurement may come out differently.
    """
    if clip.logit_scale.device.type != "cpu" or clip.text_width < _LARGE:
        return False
    if torch.are_deterministic_algorithms_enabled():
        return False
    gain = distributed.from_first(onednn_gain())
    logger.info("oneDNN multiplies matrices in float32 %.1f times as fast as PyTorch's default on this CPU%s", gain,
                ", so the towers take it" if gain >= _WORTH_IT else "")
    return gain >= _WORTH_IT
