"""What methods for classes that arrive in tasks share: their head, and a brick that hears of each task."""
from __future__ import annotations

from clip import FrozenCLIP, encode_texts
from dassl.config import CfgNode
from dassl.engine.hooks.stages import tasks_of
from dassl.utils import UserError
from trainers._base import PromptTrainer
from trainers.parts.classes import Classes
from trainers.parts.heads import LinearHead
from trainers.parts.queried import QueriedModel

HEADS = ("linear", "texts")


def add_options(c: CfgNode) -> None:
    """What every one of these methods has."""
    c.HEAD = "linear"                   # linear, as published: a learned classifier; texts: cosines with CLIP's texts
    c.PREC = "fp16"                     # fp16, amp, bf16 (autocast) or fp32; a CPU runs bf16 or fp32


class IncrementalTrainer(PromptTrainer):
    """`shared_out` names the option of which every task needs one."""

    needs_vit, shared_out = True, ""

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        c = cfg.TRAINER[self.section]
        if c.HEAD not in HEADS:
            raise UserError(f"TRAINER.{self.section}.HEAD must be linear or texts, got {c.HEAD!r}.")
        if self.shared_out and c[self.shared_out] < tasks_of(cfg):
            raise UserError(f"TRAINER.{self.section}.{self.shared_out} must be at least TRAIN.TASKS {tasks_of(cfg)}, "
                            f"one for each task, got {c[self.shared_out]}.")

    def before_task(self, task: int, tasks: int) -> None:
        if hasattr(brick := self.model.brick("visual"), "begin"):
            brick.begin(task, tasks)

    @classmethod
    def bound_to_classes(cls, options: CfgNode) -> str:
        return "a linear classifier" if options.HEAD == "linear" else ""


def on_class_token(clip: FrozenCLIP, classes: Classes, visual, head: str) -> QueriedModel:
    """A model whose head reads the class token: after the last norm if it is linear, else after the projection."""
    if head == "texts":
        return QueriedModel(clip, visual=visual, text=encode_texts(clip, classes.sentences()))
    return QueriedModel(clip, visual=visual, head=LinearHead(clip, len(classes), joint=False))
