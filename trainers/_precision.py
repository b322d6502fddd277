"""In which precision the frozen towers compute, and what this CPU would gain from bfloat16."""
from __future__ import annotations

import time

import torch
from torch import Tensor

PRECISIONS = ("fp32", "fp16", "amp", "bf16")
DTYPES = {"fp16": torch.float16, "amp": torch.float16, "bf16": torch.bfloat16}

_WORTH_TELLING = 1.3                     # times as fast


def precision_on(device: torch.device, asked: str) -> str:
    """What `asked` means there: float16 needs a GPU, and a CPU runs float32 instead."""
    return asked if device.type == "cuda" or asked == "bf16" else "fp32"


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
