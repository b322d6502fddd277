"""Prompts tuned for one image after the other, each time from the same start."""
from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


@torch.no_grad()
def tune_one_by_one(images: Iterable[Tensor], learned: list[Tensor], loss_of: Callable[[Tensor], Callable[[], Tensor]],
                    answer: Callable[[Tensor], Tensor], rate: float, steps: int) -> Tensor:
    """Answers after `steps` of AdamW on each image, concatenated; `learned` is as before then, also after an error.

    Args:
        images: each with its views (V, 3, H, W).
        loss_of: an image to what gives its loss () in every step, called with gradients on.
        answer: an image to (1, C), with the values that were tuned for it.
    """
    before = [p.detach().clone() for p in learned]

    def start_again() -> None:
        for p, value in zip(learned, before, strict=True):
            p.copy_(value)

    try:
        answers = []
        for views in images:
            start_again()
            optimiser, loss = torch.optim.AdamW(learned, rate), loss_of(views)
            for _ in range(steps):
                with torch.enable_grad():
                    gradients = torch.autograd.grad(loss(), learned, allow_unused=True)
                for p, gradient in zip(learned, gradients, strict=True):
                    p.grad = gradient
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
            answers.append(answer(views))
        return torch.cat(answers)
    finally:
        start_again()
