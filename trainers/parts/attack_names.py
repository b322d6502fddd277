"""Attacks in words: "pgd:1/255:10", "cw:4/255:20:restarts=3", "autoattack:8/255:norm=linf"."""
from __future__ import annotations

import math
from dataclasses import dataclass, replace
from difflib import get_close_matches
from fractions import Fraction

import torch
from torch import Tensor

from clip import InputError
from trainers.parts.attacks import NORMS, LogitsOf, check_attack, check_pixels, margin, pgd, random_search
from trainers.parts.attacks_auto import ATTACKS as PARTS
from trainers.parts.attacks_auto import STANDARD, autoattack
from trainers.parts.attacks_pyramid import pyramid

STEPS = {"pgd": 10, "cw": 10, "pyramid": 5, "random": 100, "autoattack": 100, **dict.fromkeys(PARTS, 100),
         "square": 5000}                # of each kind by default: of AutoAttack as published
RULE = "An attack is written KIND:EPS[:STEPS][:NAME=VALUE ...], as in pgd:4/255:10 or pgd:4/255:10:restarts=5"


@dataclass(frozen=True)
class Attack:
    """Attributes:
        kind: of STEPS. eps: radius, in pixel values of [0, 1] for "linf", else a length. norm: of NORMS.
        steps: by gradients; tries of "random" and queries of "square", which have none.
        step_size: by default 2.5 * eps / steps. restarts: of pgd and cw.
    """

    kind: str
    eps: float
    steps: int
    step_size: float
    norm: str = "linf"
    restarts: int = 1

    @classmethod
    def parse(cls, text: str) -> Attack:
        """Raises InputError for what is no attack."""
        kind, *rest = text.strip().split(":")
        if kind not in STEPS:
            near = get_close_matches(kind, STEPS, 1)
            raise InputError(f"{RULE}. Its kind must be {', '.join(STEPS)}, got {kind!r}"
                             f"{f'; did you mean {near[0]!r}?' if near else '.'}")
        numbers = [word for word in rest if "=" not in word]
        options = dict(word.split("=", 1) for word in rest if "=" in word)
        if not 1 <= len(numbers) <= 2 or (unknown := options.keys() - {"step", "restarts", "norm"}):
            raise InputError(f"{RULE}. After its kind come a radius, steps and step=, restarts= or norm=, got {text!r}"
                             f"{f' with {sorted(unknown)[0]}=' if 1 <= len(numbers) <= 2 else ''}.")
        eps, steps = _number(numbers[0], text), _whole(numbers[1], text) if numbers[1:] else STEPS[kind]
        norm, restarts = options.get("norm", "linf"), _whole(options.get("restarts", "1"), text)
        if norm not in NORMS or norm != "linf" and kind == "pyramid":
            raise InputError(f"{RULE}. Its norm must be {' or '.join(NORMS if kind != 'pyramid' else NORMS[:1])}, got "
                             f"{norm!r} in {text!r}.")
        if restarts != 1 and kind not in ("pgd", "cw"):
            raise InputError(f"{RULE}. Only pgd and cw start several times, got restarts={restarts} in {text!r}.")
        if not 0 < eps <= (1 if norm == "linf" else math.inf):
            most = " and at most 1, the range of a pixel" if norm == "linf" else ""
            raise InputError(f"{RULE}. A radius must be above 0{most}, got {numbers[0]} in {text!r}. 4/255 is four of "
                             "the 255 steps of a pixel.")
        step = _number(options["step"], text) if "step" in options else 2.5 * eps / max(steps, 1)
        if steps < 1 or restarts < 1 or not step > 0:
            raise InputError(f"{RULE}. It needs at least 1 step and 1 start and a step size above 0, got {steps} "
                             f"steps, {restarts} starts and a step size of {step:g} in {text!r}.")
        return cls(kind, eps, steps, step, norm, restarts)

    def __call__(self, logits_of: LogitsOf, images: Tensor, labels: Tensor, seed: int = 0) -> Tensor:
        """(B, 3, H, W) the perturbation; draws have a stream of their own.

        Args:
            logits_of: images in [0, 1] to logits (B, C). images: (B, 3, H, W) in [0, 1]. labels: (B,).
        Raises:
            InputError: as the attack.
        """
        check_pixels(images)
        check_attack(images, self.eps, self.norm, self.steps, self.step_size, self.restarts)
        generator = torch.Generator(images.device).manual_seed(seed)
        sizes = (self.eps, self.step_size, self.steps)
        if self.kind in ("pgd", "cw"):
            loss = {"loss": margin} if self.kind == "cw" else {}
            return pgd(logits_of, images, labels, *sizes, self.norm, restarts=self.restarts, generator=generator,
                       **loss)
        if self.kind == "pyramid":
            return pyramid(logits_of, images, labels, *sizes)
        if self.kind == "random":
            return random_search(logits_of, images, labels, self.eps, self.steps, self.norm, generator)
        parts = STANDARD if self.kind == "autoattack" else (self.kind,)
        asked = {"queries": self.steps} if self.kind == "square" else {"steps": self.steps}
        return autoattack(logits_of, images, labels, self.eps, self.norm, parts, seed=seed, **asked)

    @property
    def radius(self) -> str:
        """In units of 1/255, or the length in the l2 norm."""
        return f"{in_255(self.eps)}" if self.norm == "linf" else f"{self.eps:g} (l2)"

    @property
    def words(self) -> str:
        """What it is, with every number that it depends on."""
        kind = {"pgd": "PGD", "cw": "CW", "autoattack": "AutoAttack", "pyramid": "pyramid"}.get(self.kind, self.kind)
        what = {"random": "tries", "square": "queries"}.get(self.kind, "steps")
        size = f" of {in_255(self.step_size) if self.norm == 'linf' else f'{self.step_size:g}'}" \
            if self.kind in ("pgd", "cw", "pyramid") else ""
        starts = f", best of {self.restarts} starts" if self.restarts > 1 else ""
        return f"{kind}, eps {self.radius}, {self.steps} {what}{size}{starts}"

    def with_steps(self, steps: int) -> Attack:
        """Of the same step size."""
        return replace(self, steps=steps)


def in_255(value: float) -> str:
    return f"{round(value * 255, 4):g}/255"


def _number(text: str, whole: str) -> float:
    try:
        value = float(Fraction(text))
    except (ValueError, ZeroDivisionError):
        raise InputError(f"{RULE}. A radius or a step is a number or a fraction such as 1/255, got {text!r} in "
                         f"{whole!r}.") from None
    return value


def _whole(text: str, whole: str) -> int:
    if not text.isdecimal():
        raise InputError(f"{RULE}. Steps and starts are whole numbers, got {text!r} in {whole!r}.")
    return int(text)
