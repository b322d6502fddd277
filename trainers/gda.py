"""GDA: a Gaussian classifier of image features in closed form, added to CLIP's.

Source: A Hard-to-Beat Baseline for Training-Free CLIP-based Adaptation (Wang et al., ICLR 2024), authors' code 560fe21,
main_few_shots.py. What is easily missed: each of ten random crops is a sample of its own; cosines count 100 times; the
first of the best weights is taken. On ImageNet the authors choose it on the test images: SELECT "test", which
results.json then says. See `trainers.parts.discriminant`.
"""
import math

import torch

from clip import FrozenCLIP
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from trainers.errors import as_user_error
from trainers.features import add_feature_options
from trainers.parts.classes import Classes
from trainers.parts.discriminant import discriminant
from trainers.parts.feature_heads import BlendHead
from trainers.parts.prompted_model import PromptedModel
from trainers.parts.teacher import mean_text_features
from trainers.selecting import SelectingTrainer

WEIGHTS = (1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0)


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.GDA = CfgNode()
    c.ALPHA = 1.0                       # weight of the Gaussian classifier where it is not sought
    c.SELECT = "val"                    # where alpha is sought, in powers of ten from 1e-4 to 100: "val", "test"
                                        # (published, for ImageNet), or "fixed": it stays as above
    add_feature_options(c, views=10)


@TRAINER_REGISTRY.register()
class GDA(SelectingTrainer):
    section, learns = "GDA", "closed form"
    saved_as = {f"head.{name}": f"gda.{name}" for name in ("weight", "bias", "text_weight")}
    one_process_only = "its covariance takes the features of all images at once"
    bounds = {**SelectingTrainer.bounds, "ALPHA": (0, math.inf)}

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        text = mean_text_features(clip, classes, options.TEMPLATES)
        return PromptedModel(clip, text=text, head=BlendHead(clip, len(classes), 100.0),
                             saved_as=cls.saved_as)

    @classmethod
    def bound_to_classes(cls, options: CfgNode) -> str:
        return "a mean of each class"

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        return {} if weights.keys() == set(cls.saved_as.values()) else None

    @torch.no_grad()
    def run_epoch(self) -> None:
        head = self.model.head
        with as_user_error():
            weight, bias = discriminant(*self.every_view(), self.num_classes)

        def use(alpha: float) -> None:
            head.weight.copy_(alpha * weight)
            head.bias.copy_(alpha * bias)

        if self.options.SELECT == "fixed":
            use(self.options.ALPHA)
        else:
            self.choose("alpha", WEIGHTS, use)
