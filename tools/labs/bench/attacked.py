"""How much an attack costs compared with the passes of the image tower that it cannot do without.

PGD with n steps and the answer to what it found are n + 1 passes of the tower and n passes back to the image; texts
that do not depend on the image are encoded once. All else (directions, projections, logits) should be small.
"""
from __future__ import annotations

import argparse

import torch

from clip import load_clip
from tools.labs.bench.rows import BACKBONES, class_names
from tools.labs.bench.run import plan, setup
from tools.labs.bench.timing import Watch, milliseconds
from trainers.errors import refusal_as_user_error
from trainers.parts.attack_names import Attack
from trainers.parts.attacks import frozen
from trainers.parts.prompted_model import PromptedModel
from trainers.parts.text_prompt import TextPrompt

MOST = 1.2                              # times the passes themselves, that PGD may take


def run(args: argparse.Namespace) -> dict:
    """What --attack measures, on each backbone. Raises UserError for what cannot be measured."""
    plan(args)                          # which refuses backbones and numbers that are none
    settings = setup(args)
    with refusal_as_user_error():
        attack = Attack.parse(args.attack)
        return {"attacks": [measure(backbone, max(args.classes), args.test_batch, attack, args.rounds, settings.device,
                                    args.seed) for backbone in args.backbones]}


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

    def ours(_: Watch) -> None:
        delta = attack(logits, images, labels, seed)
        with torch.no_grad():
            logits(images + delta)

    def passes(_: Watch) -> None:
        for _ in range(attack.steps):
            seen = images.clone().requires_grad_()
            torch.autograd.grad(clip.encode_image(seen).sum(), seen)
        with torch.no_grad():
            clip.encode_image(images)

    with frozen(model):
        ours(Watch())                               # texts are kept from here on
        times = [(milliseconds(ours, device), milliseconds(passes, device)) for _ in range(rounds)]
    attacked, alone = (min(column) / 1000 for column in zip(*times, strict=True))
    return {"row": f"{attack.words} on {backbone}, {classes} classes, batch {batch}", "seconds": attacked,
            "passes_alone": alone, "ratio": attacked / alone, "most": MOST}


def table(result: dict) -> str:
    return "\n".join(map(_line, result["attacks"]))


def _line(found: dict) -> str:
    return (f"{found['row']}: {1000 * found['seconds']:.1f} ms; {1000 * found['passes_alone']:.1f} ms for the passes "
            f"of the image tower alone; ratio {found['ratio']:.2f} (at most {found['most']} is meant)")

