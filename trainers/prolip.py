"""ProLIP: the image tower's projection alone, held near what it was.

Source: CLIP's Visual Embedding Projector is a Few-shot Cornucopia (Fahes et al., arXiv 2410.05270), authors' code
18facf5, methods/ProLIP.py. What is easily missed: the regulariser is the sum of squared differences, not their mean,
times 1 / shots without validation images; a step takes one view of all images; Adam's epsilon is 1e-4, no weight decay.
Only vision transformers: the features before a ResNet's attention pool are not kept.
"""
from torch import Tensor

from clip import FrozenCLIP
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import UserError
from trainers.features import FeatureTrainer, add_feature_options
from trainers.parts.classes import Classes
from trainers.parts.feature_heads import ProjectionHead
from trainers.parts.prompted_model import Output, PromptedModel
from trainers.parts.teacher import mean_text_features


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.PROLIP = CfgNode()
    c.LAMBDA = -1.0                     # weight of the regulariser; -1: 1 / training images per class
    add_feature_options(c, views=20)


@TRAINER_REGISTRY.register()
class ProLIP(FeatureTrainer):
    section, needs_vit, saved_as = "PROLIP", True, {"head.weight": "vit_proj"}

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        if cfg.TRAINER.PROLIP.LAMBDA < 0 and cfg.TRAINER.PROLIP.LAMBDA != -1:
            raise UserError("TRAINER.PROLIP.LAMBDA must be at least 0, or -1 for 1 / training images per class, got "
                            f"{cfg.TRAINER.PROLIP.LAMBDA}.")

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        text = mean_text_features(clip, classes, options.TEMPLATES)
        return PromptedModel(clip, text=text, head=ProjectionHead(clip, 100.0), saved_as=cls.saved_as)

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        return {} if weights.keys() == {"vit_proj"} else None

    def loss(self, out: Output, batch: dict) -> dict[str, Tensor]:
        head, weight = self.model.head, self.options.LAMBDA
        weight = self.num_classes / len(self.dm.dataset.train_x) if weight < 0 else weight
        return {**super().loss(out, batch), "regulariser": weight * (head.weight - head.start).square().sum()}
