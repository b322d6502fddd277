"""Training in two stages of whole epochs, each with an optimiser and a schedule of its own."""
from __future__ import annotations

from torch import nn

from dassl.config import CfgNode
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import UserError


class TwoStages:
    """For a `PromptTrainer`, in front of it; `first_share` and `enter_stage` are the method's own."""

    one_task_only = "it trains in two stages of its own"

    def first_share(self, options: CfgNode) -> float:
        """Of the epochs that the first stage has, from 0 to 1."""
        raise NotImplementedError

    def second_rate(self, options: CfgNode) -> float:
        """Learning rate of the second stage."""
        return self.cfg.OPTIM.LR

    def enter_stage(self, first: bool) -> None:
        """Called before every epoch: let what belongs to the stage learn, and nothing else."""
        raise NotImplementedError

    def before_second_stage(self) -> None:
        """Called once between the stages; not where a run resumes within the second. Nothing here."""

    @property
    def first_epochs(self) -> int:
        return round(self.first_share(self.options) * self.max_epoch)

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        if cfg.TEST.FINAL_MODEL == "best_val" and 0 < self.first_share(cfg.TRAINER[self.section]) < 1:
            raise UserError(f"The stages of {type(self).__name__} score images in two ways, so no epoch of both can be "
                            "chosen on validation images, as TEST.FINAL_MODEL best_val asks. Set it to last_step.")

    def register_prompts(self, learner: nn.Module) -> None:
        self.register_model("prompt_learner", learner)
        self._begin(self.first_epochs or self.max_epoch, self.cfg.OPTIM.LR)

    def before_epoch(self) -> None:
        first = self.first_epochs
        if self.epoch == first and not self.autosave.finished_batches:
            self.before_second_stage()
            if 0 < first:
                self._begin(self.max_epoch - first, self.second_rate(self.options))
        self.enter_stage(self.epoch < first)
        super().before_epoch()

    def _begin(self, epochs: int, rate: float) -> None:
        optim = self.cfg.OPTIM.clone()
        optim.defrost()
        optim.MAX_EPOCH, optim.LR = epochs, rate
        self.optim = self._optims["prompt_learner"] = build_optimizer(self.model.prompt_learner, optim)
        self.sched = self._scheds["prompt_learner"] = build_lr_scheduler(self.optim, optim)
