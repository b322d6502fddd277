"""In which precision the frozen towers compute, and what this CPU would gain from bfloat16."""
from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.optim import Optimizer

from clip import FrozenCLIP

PRECISIONS = ("fp32", "fp16", "amp", "bf16")
DTYPES = {"fp16": torch.float16, "amp": torch.float16, "bf16": torch.bfloat16}

_WORTH_TELLING = 1.3                     # times as fast


class MixedPrecision:
    """Reduced precision for the towers of one trainer, under autocast; what is learned and the losses stay float32.

    Args:
        clip: on its device; a CPU knows bf16 alone, and runs float32 instead of fp16 and amp.
        asked: one of PRECISIONS.
        half_towers: also keep the towers' matrices in it, and scale the loss if it is float16.
    Attributes:
        name: what `asked` means on that device. scaler: of the loss; passes everything through unless it is needed.
    """

    def __init__(self, clip: FrozenCLIP, asked: str, half_towers: bool):
        self.clip, self.device_type = clip, clip.logit_scale.device.type
        self.name = asked if self.device_type == "cuda" or asked == "bf16" else "fp32"
        self.dtype = DTYPES.get(self.name)
        scaled = half_towers and self.dtype == torch.float16
        self.scaler = torch.amp.GradScaler(self.device_type, enabled=scaled)
        if half_towers and self.dtype is not None:
            clip.half_weights(self.dtype)

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device_type, dtype=self.dtype, enabled=self.dtype is not None)

    def step(self, optims: Iterable[Optimizer]) -> bool:
        """One step of each optimiser; False if the scaler left it out, since a scaled gradient was infinite or NaN."""
        before = self.scaler.get_scale()
        for optim in optims:
            self.scaler.step(optim)
        self.scaler.update()
        return self.scaler.get_scale() >= before

    @contextlib.contextmanager
    def in_float32(self) -> Iterator[None]:
        """Inside, everything computes in float32, with the towers' matrices as they were rounded."""
        dtype, of_matrices = self.dtype, self.clip.matrix_dtype
        self.dtype = None
        self.clip.half_weights(torch.float32)
        try:
            yield
        finally:
            self.dtype = dtype
            self.clip.half_weights(of_matrices)


def hint_of_bf16(option: str) -> str:
    """A sentence for who asked for half precision on a CPU, if bfloat16 is measured to be faster there; else ""."""
    gain = bf16_gain()
    if gain < _WORTH_TELLING:
        return ""
    return (f"This CPU multiplies matrices {gain:.1f} times as fast in bfloat16 as in float32, which is used now; "
            f"TRAINER.{option} bf16 takes it, with losses and prompts in float32 still.")


def bf16_gain(tokens: int = 394, width: int = 768) -> float:
    """How many times as fast a product of a ViT-B's block is in bfloat16 as in float32; takes some 50 ms."""
    x, weight = torch.ones(tokens, width), torch.ones(4 * width, width)
    return _seconds(x, weight) / _seconds(x.bfloat16(), weight.bfloat16())


def _seconds(x: Tensor, weight: Tensor) -> float:
    times = []
    for _ in range(4):
        start = time.perf_counter()
        torch.nn.functional.linear(x, weight)
        times.append(time.perf_counter() - start)
    return min(times)
