"""PromptKD: visual prompts and a projector that learn a larger model's answers to images without labels.

Source: PromptKD: Unsupervised Prompt Distillation (Li et al., CVPR 2024), trainers/promptkd.py; numbers in
configs/recipes/promptkd.yaml. Its training images have no labels, and may be those of any class that a test asks for:
that is transductive, and is listed in a table of its own.
- The student has no text side: it is compared with the teacher's class features, which are saved with it.
- KL of the teacher to the student is a mean over images *and* classes, hence the weight of 1000.
- The teacher sees the same augmented images, in evaluation mode.
TEACHER is the folder of a run of any method that compares with one feature of each class; published is PromptSRC on
ViT-L/14, trained on the base classes.
"""
import logging
import math
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip import FrozenCLIP, encode_texts
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import UserError
from trainers._base import PromptTrainer
from trainers.method import POSITIVE
from trainers.parts.classes import Classes
from trainers.parts.distilled_head import DistilledHead
from trainers.parts.prompted_model import Output, PromptedModel
from trainers.parts.visual_prompt import VisualPrompt
from trainers.taught import Teacher, teacher_of, zero_shot_teacher

logger = logging.getLogger(__name__)
_LAYERS = {"0": ("weight", "bias"), "1": ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"),
           "3": ("weight", "bias")}


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.PROMPTKD = CfgNode()
    c.TEACHER = ""                      # folder of the run that teaches; "": the student's towers without prompts
    c.N_CTX_VISION = 4                  # visual tokens in each prompted block
    c.PROMPT_DEPTH_VISION = 9           # prompted blocks; 1 is shallow
    c.KD_WEIGHT = 1000.0                # of the divergence, a mean over images and classes
    c.TEMPERATURE = 1.0                 # of both; larger makes their answers softer
    c.PREC = "fp16"                     # fp16, amp, bf16 (autocast) or fp32; a CPU runs bf16 or fp32


@TRAINER_REGISTRY.register()
class PromptKD(PromptTrainer):
    one_task_only = "a teacher's scores of all classes are its target"
    section, needs_vit = "PROMPTKD", True
    bounds = {**PromptTrainer.bounds, "TEMPERATURE": (POSITIVE, math.inf)}
    one_process_only = "its projector normalises over the whole batch"

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        visual = VisualPrompt(clip, options.N_CTX_VISION, options.PROMPT_DEPTH_VISION, placement="end")
        head = DistilledHead(clip, encode_texts(clip, classes.sentences()))
        return PromptedModel(clip, visual=visual, head=head, saved_as=_names(options.PROMPT_DEPTH_VISION))

    @classmethod
    def bound_to_classes(cls, options: CfgNode) -> str:
        return "its teacher's features of each class, which are saved with the prompts"

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        depth = sum("VPT" in name and "trans." not in name for name in weights)
        names = {name for saved in _names(depth).values() for name in ([saved] if isinstance(saved, str) else saved)}
        if weights.keys() - {"head.text"} != names or weights["image_encoder.VPT"].dim() != 2:
            return None
        return {"N_CTX_VISION": len(weights["image_encoder.VPT"]), "PROMPT_DEPTH_VISION": depth}

    @cached_property
    def teacher(self) -> Teacher:
        """Only training asks for it."""
        if folder := self.options.TEACHER:
            return teacher_of(folder, self.model.clip, self.classes, self.device)
        logger.warning("TRAINER.PROMPTKD.TEACHER is empty, so the student's own towers teach it, without prompts. "
                       "Published is a larger model with prompts of its own.")
        return zero_shot_teacher(self.model.clip, self.classes)

    def register_prompts(self, learner: nn.Module) -> None:
        if self.options.TEACHER and Path(self.options.TEACHER).is_dir():        # a test needs none
            self.model.head.take_text(self.teacher[0])
        super().register_prompts(learner)

    def before_train(self) -> None:
        if self.options.TEACHER and not Path(self.options.TEACHER).is_dir():
            raise UserError("TRAINER.PROMPTKD.TEACHER names the folder of the run that teaches, and there is none at "
                            f"{self.options.TEACHER}.")
        super().before_train()

    def loss(self, out: Output, batch: dict) -> dict[str, Tensor]:
        with torch.no_grad():
            taught = self.teacher[1](self.inputs(batch))                                          # (B, C)
        T = self.options.TEMPERATURE
        divergence = F.kl_div((out.logits / T).log_softmax(1), (taught / T).softmax(1), reduction="none").mean()
        return {"kd": self.options.KD_WEIGHT * T ** 2 * divergence}


def _names(depth: int) -> dict[str, str | list[str]]:
    """The authors keep the tokens in the tower's blocks, and call the projector a prompt, so that it learns."""
    blocks = [f"image_encoder.transformer.resblocks.{i}.VPT_shallow" for i in range(1, depth)]
    layers = {f"head.projector.{layer}.{kind}": f"VPT_image_trans.conv1.{layer}.{kind}"
              for layer, kinds in _LAYERS.items() for kind in kinds}
    return {"visual.tokens": ["image_encoder.VPT", *blocks], **layers}
