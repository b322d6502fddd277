"""What methods for classes that arrive in tasks share: a brick that hears of each task, and needs a part for it."""
from __future__ import annotations

from dassl.config import CfgNode
from dassl.engine.hooks.stages import tasks_of
from dassl.utils import UserError
from trainers.headed import HeadedTrainer


class IncrementalTrainer(HeadedTrainer):
    """`shared_out` names the option of which every task needs one."""

    shared_out = ""

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        c = cfg.TRAINER[self.section]
        if self.shared_out and c[self.shared_out] < tasks_of(cfg):
            raise UserError(f"TRAINER.{self.section}.{self.shared_out} must be at least TRAIN.TASKS {tasks_of(cfg)}, "
                            f"one for each task, got {c[self.shared_out]}.")

    def before_task(self, task: int, tasks: int) -> None:
        if hasattr(brick := self.model.brick("visual"), "begin"):
            brick.begin(task, tasks)
