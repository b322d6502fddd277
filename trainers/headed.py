"""Trainers that read the image tower's class token by a linear classifier or by CLIP's texts, as HEAD says."""
from __future__ import annotations

from torch import nn

from clip import FrozenCLIP, encode_texts
from dassl.config import CfgNode
from dassl.utils import UserError
from trainers._base import PromptTrainer
from trainers.parts.classes import Classes
from trainers.parts.heads import LinearHead
from trainers.parts.prompted_model import PromptedModel

HEADS = ("linear", "texts")


def add_head_options(c: CfgNode) -> None:
    """What every one of these methods has."""
    c.HEAD = "linear"                   # linear: a learned classifier; texts: cosines with CLIP's texts of the classes
    c.PREC = "fp16"                     # fp16, amp, bf16 (autocast) or fp32; a CPU runs bf16 or fp32


class HeadedTrainer(PromptTrainer):
    """`options.HEAD` is one of HEADS."""

    needs_vit = True

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        if (head := cfg.TRAINER[self.section].HEAD) not in HEADS:
            raise UserError(f"TRAINER.{self.section}.HEAD must be linear or texts, got {head!r}.")

    @classmethod
    def bound_to_classes(cls, options: CfgNode) -> str:
        return "a linear classifier" if options.HEAD == "linear" else ""


def on_class_token(clip: FrozenCLIP, classes: Classes, visual: nn.Module, head: str,
                   kind: type[PromptedModel] = PromptedModel) -> PromptedModel:
    """A model of that kind; a linear head reads the class token after the last norm, before the projection."""
    if head == "texts":
        return kind(clip, visual=visual, text=encode_texts(clip, classes.sentences()))
    return kind(clip, visual=visual, head=LinearHead(clip, len(classes), joint=False))


def head_of(weights: dict) -> str:
    """HEAD of a checkpoint."""
    return "linear" if "head.weight" in weights else "texts"
