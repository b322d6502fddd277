"""In which precision the frozen towers compute, and by which library; on a CPU the processor alone decides both."""
from __future__ import annotations

import logging

import torch

from clip import FrozenCLIP
from clip.processor import BFLOAT16, this_processor
from clip.products import has_onednn
from dassl.optim.loss_scaler import LossScaler
from dassl.utils import UserError, distributed
from dassl.utils.logger import CONSOLE
from dassl.utils.registry import nearest

PRECISIONS = ("fp32", "fp16", "amp", "bf16")
DTYPES = {"fp16": torch.float16, "amp": torch.float16, "bf16": torch.bfloat16}
ONEDNN = ("auto", "on", "off")

_LARGE = 512                             # width of a text tower whose steps take long on a CPU

logger = logging.getLogger(__name__)


class MixedPrecision:
    """Reduced precision for the towers of one trainer, under autocast; what is learned and the losses stay float32.

    Args:
        clip: on its device.
        asked: one of PRECISIONS.
        half_towers: also keep the towers' matrices in it, and scale the loss if it is float16.
        onednn: TRAIN.ONEDNN, one of ONEDNN.
    Attributes:
        name: what `asked` means on that device, see `precision_on`.
        onednn: whether float32 products of the towers are oneDNN's, see `clip.products`.
        scaler: of the loss; passes everything through unless it is needed.
    """

    def __init__(self, clip: FrozenCLIP, asked: str, half_towers: bool, onednn: str = "auto"):
        self.clip, self.device_type = clip, clip.logit_scale.device.type
        self.name = precision_on(clip, asked)
        self.dtype = DTYPES.get(self.name)
        scaled = half_towers and self.dtype == torch.float16
        self.scaler = LossScaler(enabled=scaled)
        if half_towers and self.dtype is not None:
            clip.half_weights(self.dtype)
        self.use_onednn(*choose_library(clip, self.dtype, onednn))

    def use_onednn(self, onednn: bool, why: str = "as before the run was interrupted") -> None:
        """Have the towers multiply float32 by oneDNN, or else by F.linear; a resumed run keeps what it had."""
        self.onednn = onednn and has_onednn()
        self.clip.multiply_by_onednn(self.onednn)
        if onednn and not self.onednn:                  # asked for, or begun on another machine
            logger.warning("This PyTorch has no oneDNN for float32 on a CPU. F.linear multiplies the towers' matrices "
                           "instead, which may change the last bits of results.")
        elif self.device_type == "cpu" and self.dtype is None:
            logger.info("%s multiplies the towers' float32 matrices (%s)", "oneDNN" if onednn else "F.linear", why)

    def autocast(self, enabled: bool = True) -> torch.autocast:
        return torch.autocast(self.device_type, dtype=self.dtype, enabled=enabled and self.dtype is not None)


def precision_on(clip: FrozenCLIP, asked: str) -> str:
    """What `asked` means on CLIP's device: itself, except for float16 (fp16, amp) on a CPU, which computes it slowly.

    There it is bf16 for a large model on a processor that multiplies bfloat16 in hardware, otherwise fp32. An embedded
    or small model has the same precision on every CPU.
    """
    if clip.logit_scale.device.type == "cuda" or asked in ("fp32", "bf16"):
        return asked
    if clip.text_width < _LARGE:
        return "fp32"
    native = distributed.from_first(this_processor().multiplies_bfloat16)
    name = "bf16" if native else "fp32"
    logger.info("PREC %s is %s on this CPU, which %s bfloat16 in hardware (%s)%s", asked, name,
                "multiplies" if native else "does not multiply", " or ".join(BFLOAT16),
                "; PREC fp32 keeps float32" if native else "", extra=CONSOLE)
    return name


def choose_library(clip: FrozenCLIP, dtype: torch.dtype | None, choice: str) -> tuple[bool, str]:
    """Whether oneDNN is to compute the towers' products, in float32 on a CPU, and why.

    Args:
        dtype: of the towers where it is reduced.
        choice: "auto" is oneDNN for a large model on a processor that prefers it, except under `--deterministic`,
            where the library does not depend on the processor either.
    Raises:
        UserError: `choice` is not in ONEDNN.
    """
    choice = {"True": "on", "False": "off"}.get(choice, choice)             # as YAML reads on and off
    if choice not in ONEDNN:
        raise UserError(f"TRAIN.ONEDNN must be auto, on or off, got {choice!r}.{nearest(choice, ONEDNN)}")
    if clip.logit_scale.device.type != "cpu" or dtype is not None:
        return False, "no float32 on a CPU"
    if choice != "auto":
        return choice == "on", f"TRAIN.ONEDNN {choice}"
    if clip.text_width < _LARGE:
        return False, "a small model"
    if torch.are_deterministic_algorithms_enabled():
        return False, "--deterministic"
    processor = this_processor()
    return distributed.from_first((processor.prefers_onednn and has_onednn(), f"processor: {processor}"))
