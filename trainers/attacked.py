"""Trainers that learn from attacked images, which an attack on the present model makes in every step."""
from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from dassl.config import CfgNode
from dassl.utils import UserError
from dassl.utils.registry import nearest
from trainers._base import PromptTrainer
from trainers.errors import refusal_as_user_error
from trainers.parts.attacks import LogitsOf, frozen, pgd
from trainers.parts.attacks_pyramid import other_labels, pyramid, same_draws
from trainers.parts.prompted_model import Output

ATTACKS = ("pgd", "pyramid")
UNIT = 1 / 255


def add_attack_options(c: CfgNode, eps: float, step: float, steps: int) -> None:
    """What every method has that learns from attacked images."""
    c.EPS = eps                         # largest change of a pixel, in units of 1/255; larger: more robust, less right
    c.STEP = step                       # of the attack, in units of 1/255
    c.STEPS = steps                     # of the attack; each costs about two passes of the tower
    c.ATTACK = "pgd"                    # or "pyramid" (Pyramid AT): cells of several scales, and the clean images;
                                        # its authors have EPS 3, STEP 0.5 and STEPS 5 in these units


class AttackedTrainer(PromptTrainer):
    """Minimises the cross-entropy of images that an attack has changed within EPS; see `add_attack_options`.

    Attributes:
        attacks: that ATTACK may name.
    """

    normalised, attacks = False, ATTACKS

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        c, name = cfg.TRAINER[self.section], f"TRAINER.{self.section}"
        if not 0 < c.EPS <= 255:
            raise UserError(f"{name}.EPS must be above 0 and at most 255, in units of 1/255, got {c.EPS}.")
        if not c.STEP > 0 or c.STEPS < 1:
            raise UserError(f"{name} needs a STEP above 0, in units of 1/255, and at least 1 of STEPS, got {c.STEP} "
                            f"and {c.STEPS}.")
        if c.ATTACK not in self.attacks:
            raise UserError(f"{name}.ATTACK must be {' or '.join(self.attacks)}, got {c.ATTACK!r}."
                            f"{nearest(c.ATTACK, self.attacks)}")
        if not self.half_towers and c.PREC not in ("fp32", "bf16"):
            raise UserError(f"{name}.PREC must be fp32 or bf16, got {c.PREC!r}: no loss is scaled here.")

    @property
    def sizes(self) -> tuple[float, float, int]:
        """Radius and step of the attack in pixel values, and its steps."""
        return self.options.EPS * UNIT, self.options.STEP * UNIT, self.options.STEPS

    def attacked_model(self) -> LogitsOf:
        """Images in [0, 1] to logits; texts that do not depend on the image are computed once, without a gradient."""
        with torch.no_grad():
            text = None if self.model.is_conditional else self.model.text_for_head()
        return lambda images: self.model.compare(self.model.image_features(images, self.model.unit_norm), text).logits

    def inputs(self, batch: dict) -> Tensor:
        with self.attacking():
            return batch["img"] + self.perturbation(batch["img"], batch["label"])

    @contextlib.contextmanager
    def attacking(self) -> Iterator[None]:
        """Inside, nothing that is learned records a gradient, and what an attack refuses is the user's to change."""
        with refusal_as_user_error(), frozen(self.model):
            yield

    def perturbation(self, images: Tensor, labels: Tensor) -> Tensor:
        """(B, 3, H, W) of the attack on a training batch."""
        return pgd(self.attacked_model(), images, labels, *self.sizes)

    def output(self, batch: dict) -> Output:
        """Of attacked images; the pyramid's has the clean ones' logits as well, under the same mask of dropout."""
        if self.options.ATTACK == "pgd":
            return super().output(batch)
        targets, forward = other_labels(batch["label"], len(self.classes)), same_draws(self.model)
        attacked = same_draws(self.attacked_model())
        with self.attacking():
            delta = pyramid(attacked, batch["img"], batch["label"], *self.sizes, targets=targets)
        clean, out = forward(batch["img"]), forward(batch["img"] + delta)
        out.aux["clean"] = clean.logits
        return out

    def loss(self, out: Output, batch: dict) -> dict[str, Tensor]:
        terms = {"ce": F.cross_entropy(out.logits, batch["label"])}
        return {**terms, "clean": F.cross_entropy(out.aux["clean"], batch["label"])} if "clean" in out.aux else terms
