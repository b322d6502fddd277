"""ZSLP and CLAP: a linear probe on cosines that begins as CLIP's texts; CLAP holds each class near its text.

Source: A Closer Look at the Few-Shot Adaptation of Large Vision-Language Models (Silva-Rodriguez et al., CVPR 2024),
authors' code dbdf409, trainers/adapters.py. What is easily missed: prototypes and texts are not normalised, neither at
first nor in the constraint, only in the cosines; a class's weight in the constraint is CLIP's mean probability of it
over the 20 random crops of its images, and stays unless RISE asks (their "adaptative"); class names keep their
underscores, which CLIP reads as tokens (UNDERSCORES). Nothing is chosen on validation images.
Difference: an epoch has one crop of each image, theirs as many random ones of all crops.
"""
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from clip import FrozenCLIP
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import UserError
from trainers.errors import as_user_error
from trainers.features import FeatureTrainer, add_feature_options
from trainers.parts.classes import Classes
from trainers.parts.constraint import DISTANCES, STRENGTHS, Constraint
from trainers.parts.feature_heads import PrototypeHead
from trainers.parts.prompted_model import Output, PromptedModel
from trainers.parts.teacher import mean_text_features


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.CLAP = CfgNode()
    c.STRENGTH = "zero-shot"            # of CLAP's constraint: zero-shot, corrected, constant or balanced
    c.DISTANCE = "l2"                   # that it penalises: l2 or cosine
    c.RISE = False                      # after every epoch, hold those classes harder that moved
    c.UNDERSCORES = True                # class names keep them, as published; False writes spaces
    add_feature_options(c, views=20)


@TRAINER_REGISTRY.register()
class ZSLP(FeatureTrainer):
    section, saved_as = "CLAP", {"head.prototypes": "adapter.prototypes"}

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        text = mean_text_features(clip, classes, options.TEMPLATES, normalise_each=False, unit_norm=False,
                                  underscores=options.get("UNDERSCORES", False))
        return PromptedModel(clip, head=PrototypeHead(text), saved_as=cls.saved_as)

    @classmethod
    def bound_to_classes(cls, options: CfgNode) -> str:
        return "a prototype of each class"

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        return {} if weights.keys() - {"adapter.base_text_features"} == {"adapter.prototypes"} else None


@TRAINER_REGISTRY.register()
class CLAP(ZSLP):
    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        c = cfg.TRAINER.CLAP
        if c.STRENGTH not in STRENGTHS or c.DISTANCE not in DISTANCES:
            raise UserError(f"TRAINER.CLAP needs STRENGTH {', '.join(STRENGTHS[:-1])} or {STRENGTHS[-1]} and DISTANCE "
                            f"{' or '.join(DISTANCES)}, got {c.STRENGTH!r} and {c.DISTANCE!r}.")

    @cached_property
    @torch.no_grad()
    def constraint(self) -> Constraint:
        (features, labels), start = self.every_view(), F.normalize(self.model.head.start, dim=-1)
        with as_user_error():
            return Constraint(self.model.clip.scale * features @ start.t(), labels, self.options.STRENGTH,
                              self.options.DISTANCE)

    def before_train(self) -> None:
        _ = self.constraint                     # a class without images is reported before anything is written
        super().before_train()

    def use_stand_ins(self) -> None:
        labels = torch.arange(self.num_classes, device=self.device)
        self.constraint = Constraint(torch.rand(len(labels), len(labels), device=self.device), labels)

    def loss(self, out: Output, batch: dict) -> dict[str, Tensor]:
        head = self.model.head
        return {**super().loss(out, batch), "constraint": self.constraint(head.prototypes, head.start)}

    def after_epoch(self) -> None:
        if self.options.RISE:
            self.constraint.rise(self.model.head.prototypes, self.model.head.start)
        super().after_epoch()

    def training_state(self) -> dict:
        return {**super().training_state(), "constraint": (self.constraint.strength, self.constraint.penalty)}

    def load_training_state(self, state: dict) -> None:
        super().load_training_state(state)
        if "constraint" in state:               # runs made before RISE have none
            self.constraint.strength, self.constraint.penalty = (x.to(self.device) for x in state["constraint"])
