"""ProtoNet: nearest class mean, training-free: the class whose mean image is nearest.

Source: Prototypical Networks (Snell et al., NeurIPS 2017), authors' code c9bb4d2, protonets/models/few_shot.py, on
CLIP's frozen features: no episodes, since nothing is left to learn. What is easily missed: "euclidean" is the squared
distance of features as the tower gives them, without a temperature; "cosine" compares with the mean of unit-norm ones.
"""
import torch
import torch.nn.functional as F

from clip import FrozenCLIP
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import UserError
from trainers.cached_features import CachedFeatures
from trainers.errors import as_user_error
from trainers.features import FeatureTrainer
from trainers.parts.classes import Classes
from trainers.parts.feature_heads import PrototypeHead
from trainers.parts.prompted_model import PromptedModel
from trainers.parts.prototypes import mean_of_each


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.PROTONET = CfgNode()
    c.MEASURE = "cosine"                # how an image is compared with a class: "cosine" or "euclidean"
    c.VIEWS = 0                         # random crops of each training image in the mean; 0: the image as in testing
    c.PREC = "fp16"                     # fp16, amp, bf16 (autocast) or fp32; a CPU runs bf16 or fp32


@TRAINER_REGISTRY.register()
class ProtoNet(FeatureTrainer):
    section, learns, saved_as = "PROTONET", "closed form", {"head.prototypes": "prototypes"}
    bounds = {**FeatureTrainer.bounds, "VIEWS": (0, 4096)}

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        if (measure := cfg.TRAINER.PROTONET.MEASURE) not in ("cosine", "euclidean"):
            raise UserError(f"TRAINER.PROTONET.MEASURE must be cosine or euclidean, got {measure!r}.")

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        nowhere = torch.zeros(len(classes), clip.embed_dim)
        return PromptedModel(clip, head=PrototypeHead(nowhere, options.MEASURE, learned=False), saved_as=cls.saved_as)

    @classmethod
    def bound_to_classes(cls, options: CfgNode) -> str:
        return "a mean of each class's images"

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        return {} if weights.keys() == {"prototypes"} else None

    @torch.no_grad()
    def run_epoch(self) -> None:
        views = self.options.VIEWS
        found = self.train_features if views else CachedFeatures(self, "train_x")
        features = found.views(range(max(views, 1))).flatten(0, 1)
        if self.model.unit_norm:
            features = F.normalize(features, dim=-1)
        with as_user_error():
            means = mean_of_each(features, found.labels.repeat(max(views, 1)), self.num_classes)
        self.model.head.prototypes.copy_(means)
