"""APT: CoOp's context words learn from images that are attacked with the words of the step.

Source: One Prompt Word is Enough to Boost Adversarial Robustness (Li et al., CVPR 2024), TreeLLi/APT c2e99e0,
trainers/apt.py; numbers in configs/recipes/apt.yaml. What is easily missed:
- Image towers are TeCoA's robust ones, of the same radius (MODEL.BACKBONE.NAME "ViT-B/32:FILE").
- The perturbation runs in the ball alone; the image that is seen is cut to its range, the perturbation is not.
- "perturbed": the words climb the loss together with the images, by steps of PROMPT_STEP, and are put back afterwards.
- "constant": the attack reads "a photo of a <class>" without a full stop, whatever is learned.
"""
import torch
from torch import Tensor

from clip import FrozenCLIP, encode_texts
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import UserError
from dassl.utils.registry import nearest
from trainers.attacked import AttackedTrainer, add_attack_options
from trainers.parts.attacks import LogitsOf, pgd
from trainers.parts.classes import Classes
from trainers.parts.prompted_model import PromptedModel
from trainers.parts.text_prompt import TextPrompt

MODES, CONSTANT = ("onfly", "constant", "perturbed"), "a photo of a {}"


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.APT = CfgNode()
    c.MODE = "onfly"                    # words in the attack: those of the step, "constant" ones, or "perturbed" ones
    c.PROMPT_STEP = 0.0                 # of the words in the attack "perturbed"; 0 leaves them as they are
    c.N_CTX = 16                        # context words; more fit better and transfer worse
    c.CSC = False                       # class-specific context; needs several shots, serves these classes only
    c.CTX_INIT = ""                     # words to start from, e.g. "a photo of a"; then N_CTX is their number
    c.CLASS_TOKEN_POSITION = "end"      # "end", "middle" or "front"
    add_attack_options(c, eps=4.0, step=2.67, steps=3)
    c.PREC = "fp16"                     # fp16, amp, bf16 (autocast) or fp32; a CPU runs bf16 or fp32


@TRAINER_REGISTRY.register()
class APT(AttackedTrainer):
    section = "APT"

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        c = cfg.TRAINER.APT
        if c.MODE not in MODES:
            raise UserError(f"TRAINER.APT.MODE must be {', '.join(MODES[:-1])} or {MODES[-1]}, got {c.MODE!r}."
                            f"{nearest(c.MODE, MODES)}")
        if not c.PROMPT_STEP >= 0 or c.MODE == "perturbed" and (not c.PROMPT_STEP or c.ATTACK != "pgd"):
            raise UserError("TRAINER.APT.PROMPT_STEP must be at least 0, and above 0 with ATTACK pgd for MODE "
                            f"perturbed, got {c.PROMPT_STEP} with MODE {c.MODE} and ATTACK {c.ATTACK}.")

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        c = options
        text = TextPrompt(clip, classes.names, c.N_CTX, c.CTX_INIT, c.CLASS_TOKEN_POSITION, c.CSC)
        return PromptedModel(clip, text=text, saved_as={"text.ctx": "ctx"}, takes_pixels=True)

    @classmethod
    def bound_to_classes(cls, options: CfgNode) -> str:
        return "a context for each class (TRAINER.APT.CSC)" if options.CSC else ""

    def attacked_model(self) -> LogitsOf:
        if self.options.MODE == "perturbed":
            return lambda images: self.model(images).logits
        if self.options.MODE == "onfly":
            return super().attacked_model()
        with torch.no_grad():
            text = encode_texts(self.model.clip, self.classes.sentences(CONSTANT))
        return lambda images: self.model.compare(self.model.image_features(images), text).logits

    def perturbation(self, images: Tensor, labels: Tensor) -> Tensor:
        words = [self.model.brick("text").ctx.requires_grad_()] if self.options.MODE == "perturbed" else []
        return pgd(self.attacked_model(), images, labels, *self.sizes, cut=False, partners=words,
                   partner_rate=self.options.PROMPT_STEP)
