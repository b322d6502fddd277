"""MMRL: tokens of a shared space in the upper blocks of both towers, and a second image feature that is read from them.

Source: MMRL: Multi-Modal Representation Learning (Guo and Gu, CVPR 2025), authors' code 27d8821, trainers/mmrl.py;
numbers in configs/recipes/mmrl.yaml. What is easily missed:
- Classes that training saw are scored by both features, new ones and other datasets by the class token alone. A run
  that is tested says which classes it saw; where nothing does, the test is refused.
- Logits are 100 times the cosines, whatever CLIP's own scale is, and ALPHA mixes logits, not features.
- The tokens make sequences longer at the first layer, in the text tower too, whose end-of-text moves; layers count
  from 1. The second feature's projection is random at first, not CLIP's.
- The weight of the two distances differs between datasets (the recipe has them) and is the same for all tasks.
Their code keeps an evaluation's text features for good; here they follow whatever is learned.
"""
import re
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from clip import FrozenCLIP
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from trainers._base import PromptTrainer
from trainers.parts.classes import Classes
from trainers.parts.prompted_model import Output, PromptedModel
from trainers.parts.representation import Representation, RepresentationHead
from trainers.parts.sentences import Sentences
from trainers.parts.teacher import cosine_distance, mean_text_features

_KINDS = ("weight", "bias")
_SAVED = "representation_learner.compound_rep_tokens"


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.MMRL = CfgNode()
    c.N_REP_TOKENS = 5                  # shared tokens; more fit better and cost time
    c.REP_DIM = 512                     # their width
    c.REP_LAYERS = tuple(range(6, 13))  # blocks of both towers, from 1, that get projections of their own; upper ones
    c.ALPHA = 0.7                       # share of the class token in logits and loss; smaller trusts the others more
    c.REG_WEIGHT = 0.5                  # of the distances to frozen CLIP; larger stays nearer
    c.PREC = "amp"                      # fp16, amp, bf16 (autocast) or fp32; a CPU runs bf16 or fp32


@TRAINER_REGISTRY.register()
class MMRL(PromptTrainer):
    section, needs_vit = "MMRL", True

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        c = options
        visual = Representation(clip, c.N_REP_TOKENS, c.REP_DIM, c.REP_LAYERS)
        return PromptedModel(clip, text=Sentences(clip, classes.sentences()), visual=visual, text_tuner=visual.text,
                             head=RepresentationHead(clip, c.ALPHA, classes.seen),
                             want=list(range(1 + c.N_REP_TOKENS)), saved_as=_names(len(c.REP_LAYERS)))

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        layers = sum(re.fullmatch(rf"{re.escape(_SAVED)}_r2vproj\.\d+\.bias", name) is not None for name in weights)
        if weights.keys() != set(_names(layers).values()):
            return None                 # which blocks they are, and ALPHA, are not in the file
        tokens, width = weights[_SAVED].shape
        return {"N_REP_TOKENS": tokens, "REP_DIM": width}

    @cached_property
    def teacher_text(self) -> Tensor:
        """(C, D), unit norm; only training asks for it."""
        return mean_text_features(self.model.clip, self.classes)

    def use_stand_ins(self) -> None:
        clip = self.model.clip
        self.teacher_text = F.normalize(torch.randn(len(self.classes), clip.embed_dim, device=self.device), dim=-1)

    def loss(self, out: Output, batch: dict) -> dict[str, Tensor]:
        c, label = self.options, batch["label"]
        with torch.no_grad():
            images = self.model.clip.encode_image(self.inputs(batch))                          # (B, D)
        return {"main": c.ALPHA * F.cross_entropy(out.aux["main"], label),
                "rep": (1 - c.ALPHA) * F.cross_entropy(out.aux["rep"], label),
                "image": c.REG_WEIGHT * cosine_distance(out.image_features, images),
                "text": c.REG_WEIGHT * cosine_distance(out.text_features, self.teacher_text)}


def _names(layers: int) -> dict[str, str]:
    towers = {"visual": "r2vproj", "text_tuner": "r2tproj"}
    return {"visual.tokens": _SAVED, "head.projection": "image_encoder.proj_rep",
            **{f"{brick}.deeper.{i}.{kind}": f"{_SAVED}_{tower}.{i}.{kind}"
               for brick, tower in towers.items() for i in range(layers) for kind in _KINDS}}
