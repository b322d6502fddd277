"""PromptSRC: deep prompts in both towers that are kept near frozen CLIP, and averaged over the epochs.

Source: Self-regulating Prompts (Khattak et al., ICCV 2023), authors' code bb95c77, trainers/promptsrc.py; numbers in
configs/recipes/promptsrc.yaml. What is easily missed:
- The teacher's texts are 60 templates, averaged before they are normalised; its images are the same augmented ones.
- L1 distances are means over rows and coordinates, and KL is a mean over images *and* classes, teacher to student.
- The Gaussian average over the epochs is what is tested and saved at the end. Their code averages the frozen
  half-precision weights too and tests a CLIP that is rounded a little; here it is the prompts alone, in float32.
"""
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from clip.templates import IMAGENET_60
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import UserError
from trainers.errors import as_user_error
from trainers.ivlp import IVLP
from trainers.parts.averaging import GaussianAverage
from trainers.parts.prompted_model import Output
from trainers.parts.teacher import check_teacher, mean_text_features


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.PROMPTSRC = CfgNode()
    c.N_CTX_TEXT = 4                    # learned words; more fit better and transfer worse
    c.N_CTX_VISION = 4                  # visual tokens in each prompted block
    c.CTX_INIT = "a photo of a"         # words whose first N_CTX_TEXT are learned; "" or N_CTX_TEXT > 4: random
    c.PROMPT_DEPTH_TEXT = 9             # blocks of the text tower with words of their own; 1 is shallow
    c.PROMPT_DEPTH_VISION = 9           # blocks of the image tower with tokens of their own; 0: no visual tokens
    c.TEXT_LOSS_WEIGHT = 25.0           # lambda2: larger keeps class features nearer to frozen CLIP's
    c.IMAGE_LOSS_WEIGHT = 10.0          # lambda1: the same of image features
    c.GPA_MEAN = 15.0                   # epoch, from 1, that counts most in the average
    c.GPA_STD = 1.0                     # its width in epochs; larger lets more of them count
    c.TEMPLATES = ()                    # the teacher's sentences, averaged; () are the 60 published ones
    c.PREC = "fp16"                     # fp16, amp, bf16 (autocast) or fp32; a CPU runs bf16 or fp32


@TRAINER_REGISTRY.register()
class PromptSRC(IVLP):
    one_task_only = "a teacher's scores of all classes are its target"
    section = "PROMPTSRC"

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        if not (std := cfg.TRAINER.PROMPTSRC.GPA_STD) > 0:
            raise UserError(f"TRAINER.PROMPTSRC.GPA_STD must be above 0 epochs, got {std}.")

    @cached_property
    def average(self) -> GaussianAverage:
        """Of the prompts over the epochs."""
        return GaussianAverage(max(1, self.max_epoch), self.options.GPA_MEAN, self.options.GPA_STD)

    @cached_property
    def teacher_text(self) -> Tensor:
        """(C, D), unit norm; only training asks for it."""
        templates, names = self.options.TEMPLATES or IMAGENET_60, self.classes.names
        return self.cached("teacher_text", lambda: mean_text_features(
            self.model.clip, self.classes, templates, normalise_each=False), images=(), labels=(), seed=0, input="",
            names=list(names), templates=list(templates))

    def use_stand_ins(self) -> None:
        clip = self.model.clip
        self.teacher_text = F.normalize(torch.randn(len(self.classes), clip.embed_dim, device=self.device), dim=-1)

    def loss(self, out: Output, batch: dict) -> dict[str, Tensor]:
        c, clip, texts = self.options, self.model.clip, self.teacher_text
        with torch.no_grad():
            images = clip.encode_image(self.inputs(batch))                                # (B, D)
            teacher = self.model.head(images, texts, clip)                                # (B, C)
        check_teacher(out.text_features, texts)
        divergence = F.kl_div(out.logits.log_softmax(1), teacher.log_softmax(1), reduction="none", log_target=True)
        return {**IVLP.loss(self, out, batch),
                "text": c.TEXT_LOSS_WEIGHT * F.l1_loss(out.text_features, texts),
                "image": c.IMAGE_LOSS_WEIGHT * F.l1_loss(out.image_features, images),
                "kl": divergence.mean()}

    def before_train(self) -> None:
        super().before_train()
        if self.average.added != self.start_epoch:
            raise UserError(f"{self.cfg.RESUME} holds the prompts after {self.start_epoch} epochs, but not their "
                            "average so far, which PromptSRC is tested with. Train from scratch in another folder.")

    def after_epoch(self) -> None:
        self.average.add(self.model.prompt_learner)
        if self.average.is_complete:
            self.average.load_into(self.model.prompt_learner)
        super().after_epoch()

    def training_state(self) -> dict:
        return {**super().training_state(), "average": self.average.state()}

    def load_training_state(self, state: dict) -> None:
        super().load_training_state(state)
        with as_user_error():
            self.average.load_state(state["average"])
