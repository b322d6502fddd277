"""TaskRes: a learned residual of each class's text feature.

Source: TaskRes (Yu et al., CVPR 2023), authors' code 5195359, trainers/taskres.py. What is easily missed: text features
are averaged over templates, and the residual is added, before anything is normalised; the residual is zero at first;
class names keep their underscores, which CLIP reads as tokens (UNDERSCORES).
Difference: epochs take VIEWS random crops of each image in turn, where theirs draw new ones.
The authors' base texts in a checkpoint are left aside: they are encoded again.
"""
from clip import FrozenCLIP
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from trainers.features import FeatureTrainer, add_feature_options
from trainers.parts.classes import Classes
from trainers.parts.heads import ResidualHead
from trainers.parts.prompted_model import PromptedModel
from trainers.parts.teacher import mean_text_features


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.TASKRES = CfgNode()
    c.ALPHA = 0.5                       # factor on the residual; larger adapts faster
    c.UNDERSCORES = True                # class names keep them, as published; False writes spaces
    add_feature_options(c, views=20)


@TRAINER_REGISTRY.register()
class TaskRes(FeatureTrainer):
    section, saved_as = "TASKRES", {"head.residual": "text_feature_residuals"}

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        text = mean_text_features(clip, classes, options.TEMPLATES, normalise_each=False, unit_norm=False,
                                  underscores=options.get("UNDERSCORES", False))
        return PromptedModel(clip, head=ResidualHead(text, options.ALPHA), saved_as=cls.saved_as)

    @classmethod
    def bound_to_classes(cls, options: CfgNode) -> str:
        return "a residual of each class"

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        return {} if weights.keys() - {"base_text_features"} == {"text_feature_residuals"} else None
