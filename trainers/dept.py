"""DePT: prompts trained together with a linear classifier, which takes what is special to the base classes.

Source: DePT: Decoupled Prompt Tuning (Zhang et al., CVPR 2024), written from its description alone; numbers in
configs/recipes/dept.yaml. What is easily missed:
- The linear classifier and its channels use features as the towers give them; the cosines use unit norm.
- It learns from the text of each image's class as well as from the image: 2 B rows, one mean.
- It and its channels learn at 6.5 times the rate of the prompts. The text channels count in training alone.
- New classes are scored by the cosines; classes that training saw by both.
`DePT` builds on CoOp. On another method whose head is the cosines: `class DePTMaPLe(Decoupled, MaPLe)`, with WEIGHT in
its section.
"""
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from clip import FrozenCLIP
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import UserError
from trainers.coop import CoOp
from trainers.parts.classes import Classes
from trainers.parts.decoupled_head import DecoupledHead
from trainers.parts.heads import CosineHead
from trainers.parts.prompted_model import Output, PromptedModel

SAVED_AS = {f"head.{own}.{kind}": f"{saved}.{kind}" for own, saved, kinds in (
    ("image_channels", "film_lp_img", ("scale", "bias")), ("text_channels", "film_lp_text", ("scale", "bias")),
    ("linear", "linear_probe_proj", ("weight", "bias"))) for kind in kinds}


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.DEPT = CfgNode()
    c.WEIGHT = 0.7                      # of the linear classifier in loss and test; larger looks more at base classes
    c.N_CTX = 4                         # from here on as TRAINER.COOP
    c.CSC = False
    c.CTX_INIT = ""
    c.CLASS_TOKEN_POSITION = "end"
    c.PREC = "fp16"                     # fp16, amp, bf16 (autocast) or fp32; a CPU runs bf16 or fp32


class Decoupled:
    """A mixin for a method that compares one feature of an image with one of each class by their cosine."""

    rates = {"head": 6.5}

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        model = super().build(clip, classes, options)
        if type(model.head) is not CosineHead or model.is_conditional:
            raise UserError("DePT builds on methods that compare image features with fixed class features by their "
                            f"cosine; {cls.__name__} does otherwise.")
        model.replace_head(DecoupledHead(clip, len(classes), options.WEIGHT, classes.seen), SAVED_AS)
        return model

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        own = set(SAVED_AS.values())
        return super().options_of({k: v for k, v in weights.items() if k not in own}) if own < weights.keys() else None

    def loss(self, out: Output, batch: dict) -> dict[str, Tensor]:
        label, w = batch["label"], self.options.WEIGHT
        terms = super().loss(replace(out, logits=out.aux["cosine"]), batch)
        both = torch.cat([out.aux["of_texts"][label], out.aux["of_images"]])                      # (2B, C)
        return {"cosine": (1 - w) * terms.pop("ce"), "linear": w * F.cross_entropy(both, label.repeat(2)), **terms}


@TRAINER_REGISTRY.register()
class DePT(Decoupled, CoOp):
    section = "DEPT"
