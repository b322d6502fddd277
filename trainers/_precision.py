"""The precision in which a trainer's towers compute, and the scaling of its loss."""
from __future__ import annotations

import logging

import torch

from clip import FrozenCLIP, products
from clip.precision import choose_library, precision_on
from dassl.optim.loss_scaler import LossScaler
from dassl.utils import distributed
from dassl.utils.logger import CONSOLE

PRECISIONS = ("fp32", "fp16", "amp", "bf16")
DTYPES = {"fp16": torch.float16, "amp": torch.float16, "bf16": torch.bfloat16}

logger = logging.getLogger(__name__)


class MixedPrecision:
    """Reduced precision for the towers of one trainer, under autocast; what is learned and the losses stay float32.

    Args:
        clip: on its device.
        asked: one of PRECISIONS.
        half_towers: also keep the towers' matrices in it, and scale the loss if it is float16.
        onednn: TRAIN.ONEDNN, see `clip.precision.choose_library`.
    Attributes:
        name: what `asked` means on that device, see `clip.precision.precision_on`.
        onednn: whether float32 products of the towers are oneDNN's, see `clip.products`.
        scaler: of the loss; passes everything through unless it is needed.
    """

    def __init__(self, clip: FrozenCLIP, asked: str, half_towers: bool, onednn: str = "auto"):
        self.clip, self.device_type = clip, clip.logit_scale.device.type
        self.name, why = distributed.from_first(precision_on(clip, asked))
        if why:
            logger.info("PREC %s is %s on this CPU, which %s", asked, self.name, why, extra=CONSOLE)
        self.dtype = DTYPES.get(self.name)
        self.scaler = LossScaler(enabled=half_towers and self.dtype == torch.float16)
        if half_towers and self.dtype is not None:
            clip.half_weights(self.dtype)
        self.use_onednn(*distributed.from_first(choose_library(clip, self.dtype, onednn)))

    def use_onednn(self, onednn: bool, why: str = "as before the run was interrupted") -> None:
        """Have the towers multiply float32 by oneDNN, or else by F.linear; a resumed run keeps what it had."""
        self.onednn = onednn and products.has_onednn()
        self.clip.multiply_by_onednn(self.onednn)
        if onednn and not self.onednn:                  # asked for, or begun on another machine
            logger.warning("This PyTorch has no oneDNN for float32 on a CPU. F.linear multiplies the towers' matrices "
                           "instead, which may change the last bits of results.")
        elif self.device_type == "cpu" and self.dtype is None:
            logger.info("%s multiplies the towers' float32 matrices (%s)", "oneDNN" if onednn else "F.linear", why)

    def autocast(self, enabled: bool = True) -> torch.autocast:
        return torch.autocast(self.device_type, dtype=self.dtype, enabled=enabled and self.dtype is not None)
