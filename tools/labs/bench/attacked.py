"""How much an attack costs compared with the passes of the image tower that it cannot do without.

PGD with n steps and the answer to what it found are n + 1 passes of the tower and n passes back to the image; texts
that do not depend on the image are encoded once. All else (directions, projections, logits) should be small.
"""
from __future__ import annotations

import time
from collections.abc import Callable

import torch

from clip import load_clip
from tools.labs.bench.rows import BACKBONES, class_names
from trainers.parts.attack_names import Attack
from trainers.parts.attacks import frozen
from trainers.parts.prompted_model import PromptedModel
from trainers.parts.text_prompt import TextPrompt

MOST = 1.2                              # times the passes themselves, that PGD may take


def measure(backbone: str, classes: int, batch: int, attack: Attack, rounds: int, device: str = "cpu",
            seed: int = 1) -> dict:
    """Seconds of an attack with learned words, of its tower passes alone, and their ratio: each the best of `rounds`.

    Args:
        backbone: a key of `tools.labs.bench.rows.BACKBONES`.
    """
    torch.manual_seed(seed)
    clip = load_clip(BACKBONES[backbone], device)
    model = PromptedModel(clip, text=TextPrompt(clip, class_names(classes), 4), takes_pixels=True).to(device).eval()
    images = torch.rand(batch, 3, clip.image_size, clip.image_size, device=device)
    labels = torch.arange(batch, device=device) % classes

    def logits(x: torch.Tensor) -> torch.Tensor:
        return model(x).logits

    def ours() -> None:
        delta = attack(logits, images, labels, seed)
        with torch.no_grad():
            logits(images + delta)

    def passes() -> None:
        for _ in range(attack.steps):
            seen = images.clone().requires_grad_()
            torch.autograd.grad(clip.encode_image(seen).sum(), seen)
        with torch.no_grad():
            clip.encode_image(images)

    with frozen(model):
        ours()                                      # texts are kept from here on
        seconds = [(_seconds(ours, device), _seconds(passes, device)) for _ in range(rounds)]
    attacked, alone = (min(column) for column in zip(*seconds, strict=True))
    return {"row": f"{attack.words} on {backbone}, {classes} classes, batch {batch}", "seconds": attacked,
            "passes_alone": alone, "ratio": attacked / alone, "most": MOST}


def table(found: dict) -> str:
    return (f"{found['row']}: {1000 * found['seconds']:.1f} ms; {1000 * found['passes_alone']:.1f} ms for the passes "
            f"of the image tower alone; ratio {found['ratio']:.2f} (at most {found['most']} is meant)")


def _seconds(function: Callable[[], None], device: str) -> float:
    start = time.perf_counter()
    function()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start
