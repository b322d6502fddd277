"""Trainers whose training images are mixed with each other, with smoothed labels; see `trainers.parts.mixing`."""
from __future__ import annotations

from functools import cached_property

import torch.nn.functional as F
from torch import Tensor

from dassl.config import CfgNode
from trainers.errors import as_user_error
from trainers.headed import add_head_options
from trainers.parts.mixing import Mixing
from trainers.parts.prompted_model import Output


def add_mixing_options(c: CfgNode) -> None:
    """What every one of these methods has, and those of `trainers.headed`."""
    c.MIXUP = 0.0                       # of Beta(a, a), the shares of two images of a batch; 0: never mixed so
    c.CUTMIX = 0.0                      # the same, of the area that another covers; with both, either is as likely
    c.SMOOTHING = 0.0                   # share of a label that all classes get evenly
    c.DROP_PATH = 0.0                   # probability that an image passes by a branch of the last block; less before
    add_head_options(c)


class MixedImages:
    """For a `PromptTrainer` with the options above, in front of it. With several labels of an image, none is mixed."""

    bounds = {"MIXUP": (0, 1e4), "CUTMIX": (0, 1e4), "SMOOTHING": (0, 1), "DROP_PATH": (0, 1)}

    @cached_property
    def mixing(self) -> Mixing | None:
        c = self.options
        if max(c.MIXUP, c.CUTMIX) <= 0:
            return None
        with as_user_error():
            return Mixing(c.MIXUP, c.CUTMIX, self.num_classes)

    def forward_backward(self, batch: dict) -> dict[str, float]:
        if self.mixing and self.several_labels is None:
            images, labels = self.parse_batch_train(batch)
            images, shares = self.mixing(images, labels)
            batch = {**batch, "img": images, "shares": shares}
        return super().forward_backward(batch)

    def loss(self, out: Output, batch: dict) -> dict[str, Tensor]:
        if "labels" in batch:
            return super().loss(out, batch)
        wanted = batch.get("shares", batch["label"])
        return {"ce": F.cross_entropy(out.logits, wanted, label_smoothing=self.options.SMOOTHING)}
