"""ZSLP and CLAP: a linear probe on cosines that begins as CLIP's texts; CLAP holds each class near its text.

Source: A Closer Look at the Few-Shot Adaptation of Large Vision-Language Models (Silva-Rodriguez et al., CVPR 2024),
authors' code dbdf409, trainers/adapters.py. What is easily missed: prototypes and texts are not normalised, neither at
first nor in the constraint, only in the cosines; a class's weight in the constraint is CLIP's mean probability of it
over the 20 random crops of its images, and stays. Nothing is chosen on validation images.
Differences: an epoch has one crop of each image, theirs as many random ones of all crops; "_" in names is a blank.
"""
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from clip import FrozenCLIP
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from trainers._checks import as_user_error
from trainers.features import FeatureTrainer, add_feature_options
from trainers.parts.classes import Classes
from trainers.parts.feature_heads import PrototypeHead
from trainers.parts.prompted_model import Output, PromptedModel
from trainers.parts.prototypes import mean_of_each
from trainers.parts.teacher import mean_text_features


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.CLAP = CfgNode()
    add_feature_options(c, views=20)


@TRAINER_REGISTRY.register()
class ZSLP(FeatureTrainer):
    section, saved_as = "CLAP", {"head.prototypes": "adapter.prototypes"}

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        text = mean_text_features(clip, classes, options.TEMPLATES, normalise_each=False, unit_norm=False)
        return PromptedModel(clip, head=PrototypeHead(text), saved_as=cls.saved_as)

    @classmethod
    def bound_to_classes(cls, options: CfgNode) -> str:
        return "a prototype of each class"

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        return {} if weights.keys() - {"adapter.base_text_features"} == {"adapter.prototypes"} else None


@TRAINER_REGISTRY.register()
class CLAP(ZSLP):
    """Attributes: strength (C,), of the constraint of each class, in [0, 1]."""

    @cached_property
    @torch.no_grad()
    def strength(self) -> Tensor:
        features, labels = self.every_view()
        start = F.normalize(self.model.head.start, dim=-1)
        right = (self.model.clip.scale * features @ start.t()).softmax(1).gather(1, labels[:, None])
        with as_user_error():
            return mean_of_each(right, labels, self.num_classes).squeeze(1)

    def before_train(self) -> None:
        _ = self.strength                       # a class without images is reported before anything is written
        super().before_train()

    def use_stand_ins(self) -> None:
        self.strength = torch.rand(self.num_classes, device=self.device)

    def loss(self, out: Output, batch: dict) -> dict[str, Tensor]:
        head = self.model.head
        away = (head.prototypes - head.start).square().sum(1)                     # (C,)
        return {**super().loss(out, batch), "constraint": (self.strength * away).mean()}
