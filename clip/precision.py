"""In which precision towers compute, and by which library: the processor decides, never a stopwatch."""
from __future__ import annotations

import torch

from . import products
from .errors import InputError
from .processor import BFLOAT16, this_processor
from .towers import FrozenCLIP

ONEDNN = ("auto", "on", "off")
_LARGE = 512                             # width of a text tower whose steps take long on a CPU


def precision_on(clip: FrozenCLIP, asked: str) -> tuple[str, str]:
    """What `asked` (fp32, fp16, amp or bf16) means on CLIP's device, and why it is another one ("" if it is not).

    It is itself, except for float16 (fp16, amp) on a CPU, which computes it slowly. There it is bf16 for a large model
    on a processor that multiplies bfloat16 in hardware, otherwise fp32. An embedded or small model has the same
    precision on every CPU.
    """
    if clip.logit_scale.device.type == "cuda" or asked in ("fp32", "bf16"):
        return asked, ""
    if clip.text_width < _LARGE:
        return "fp32", ""
    if this_processor().multiplies_bfloat16:
        return "bf16", "multiplies bfloat16 in hardware; PREC fp32 keeps float32"
    return "fp32", f"does not multiply bfloat16 in hardware ({' or '.join(BFLOAT16)})"


def choose_library(clip: FrozenCLIP, dtype: torch.dtype | None, choice: str) -> tuple[bool, str]:
    """Whether oneDNN is to compute the towers' products, in float32 on a CPU, and why.

    Args:
        dtype: of the towers where it is reduced.
        choice: one of ONEDNN; "auto" is oneDNN for a large model on a processor that prefers it, except where PyTorch
            is to be deterministic: there the library does not depend on the processor either.
    """
    choice = {"True": "on", "False": "off"}.get(choice, choice)             # as YAML reads on and off
    if choice not in ONEDNN:
        raise InputError(f"The choice of oneDNN must be auto, on or off, got {choice!r}.")
    if clip.logit_scale.device.type != "cpu" or dtype is not None:
        return False, "no float32 on a CPU"
    if choice != "auto":
        return choice == "on", f"the choice is {choice}"
    if clip.text_width < _LARGE:
        return False, "a small model"
    if torch.are_deterministic_algorithms_enabled():
        return False, "deterministic"
    processor = this_processor()
    return processor.prefers_onednn and products.has_onednn(), f"processor: {processor}"
