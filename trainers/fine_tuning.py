"""Methods that learn weights of the towers themselves, all at once."""
from __future__ import annotations

import logging

import torch
from torch import nn

from clip import FrozenCLIP
from clip.templates import IMAGENET_80
from dassl.config import CfgNode
from dassl.utils import UserError
from trainers._base import PromptTrainer
from trainers._build import build_to_train
from trainers.parts.averaging import interpolate
from trainers.parts.classes import Classes
from trainers.parts.heads import ZeroShotHead
from trainers.parts.prompted_model import PromptedModel
from trainers.parts.teacher import mean_text_features

logger = logging.getLogger(__name__)
IMAGE_TOWER, BOTH_TOWERS = r"visual\..*", ".*"


def add_options(c: CfgNode, alpha: float = 1.0, max_norm: float = 0.0) -> None:
    """What every method has that fine-tunes towers."""
    c.TEMPLATES = ()                    # sentences of a class; (): the dataset's own; ("imagenet",): CLIP's 80
    c.ALPHA = alpha                     # share of the fine-tuned weights in those that are tested and saved in the end;
                                        # the rest are those that training started from (WiSE-FT); 1 mixes nothing
    c.MAX_NORM = max_norm               # to which the norm of all gradients together is cut; 0: it is not
    c.PREC = "fp32"                     # fp32; bf16, fp16, amp: autocast in training; weights stay float32


def sentences_of(options: CfgNode) -> tuple[str, ...]:
    """The templates that the options name; "" stands for the dataset's own."""
    return IMAGENET_80 if tuple(options.TEMPLATES) == ("imagenet",) else tuple(options.TEMPLATES) or ("",)


def cut_gradients(parameters: list[nn.Parameter], limit: float) -> None:
    """Scale all gradients together so that their norm is at most `limit`, without reading it from the device."""
    torch.nn.utils.clip_grad_norm_(parameters, limit, foreach=False)


class FineTuner(PromptTrainer):
    """Trains released weights of the towers; in the end they may be mixed with those that training started from."""

    half_towers, named_templates = False, ("imagenet",)

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        c, name = cfg.TRAINER[self.section], f"TRAINER.{self.section}"
        if not 0 < c.ALPHA <= 1:
            raise UserError(f"{name}.ALPHA must be above 0, at most 1, got {c.ALPHA}. A share of 0 is zero-shot CLIP: "
                            "run ZeroshotCLIP.")
        if not c.MAX_NORM >= 0:
            raise UserError(f"{name}.MAX_NORM must be at least 0, got {c.MAX_NORM}.")
        if c.PREC in ("fp16", "amp"):
            logger.warning("%s.PREC %s computes gradients of whole towers in float16 without scaling the loss: small "
                           "ones may vanish. bf16 costs as little and keeps them", name, c.PREC)
        if c.ALPHA < 1 and cfg.TEST.FINAL_MODEL == "best_val":
            raise UserError(f"{name}.ALPHA {c.ALPHA} mixes the weights after the last epoch, so no earlier one can be "
                            "chosen on validation images. Set TEST.FINAL_MODEL last_step, or ALPHA 1.")

    def register_prompts(self, learner: nn.Module) -> None:
        super().register_prompts(learner)
        if limit := self.options.MAX_NORM:
            learned = list(learner.parameters())
            # Before the step itself: gradients are then those of all processes.
            self.optim.register_step_pre_hook(lambda *_: cut_gradients(learned, limit))

    def starting_model(self) -> PromptedModel:
        """As training started, whatever was learned or resumed since; frozen."""
        return build_to_train(type(self), self.cfg, self.classes, self.device)[0].eval().requires_grad_(False)

    def after_epoch(self) -> None:
        if self.epoch + 1 == self.max_epoch and self.options.ALPHA < 1:
            learner, start = self.model.prompt_learner, self.starting_model().prompt_learner
            end = {name: value.detach().clone() for name, value in learner.named_parameters()}
            interpolate(learner, dict(start.named_parameters()), end, self.options.ALPHA)
        super().after_epoch()


class ImageTowerTuner(FineTuner):
    """Learns the image tower, and a linear classifier that begins as the classes' texts."""

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        tower, texts = clip.trainable(IMAGE_TOWER), mean_text_features(clip, classes, sentences_of(options))
        head = {"head": ZeroShotHead(clip, texts)} if options.LEARN_HEAD else {"text": texts}
        return PromptedModel(clip, tower=tower, **head)

    @classmethod
    def bound_to_classes(cls, options: CfgNode) -> str:
        return "a linear classifier" if options.LEARN_HEAD else ""

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        head = {"head.weight", "head.bias"} <= weights.keys()
        tower = [name for name in weights if name.startswith("tower.visual/")]
        if not any("conv1" in name for name in tower) or len(tower) + 2 * head != len(weights):
            return None
        return {"LEARN_HEAD": head}
