"""CrossModal: a linear probe for which the classes' texts are training samples too.

Source: Multimodality Helps Unimodality (Lin et al., CVPR 2023), authors' code 064bb98, train.py and engine/model. What
is easily missed: half of a batch are texts, drawn at random; weights begin as the unit-norm texts and are not
normalised later; features are, and products count 100 times, whatever CLIP's own scale is.
Differences: random crops in place of an image and its mirror image; the two halves' losses are added, not averaged,
which AdamW does not tell apart; no warm-up of 50 steps; rate and decay are the recipe's, not sought for each run.
"""
import torch
import torch.nn.functional as F
from torch import Tensor

from clip import FrozenCLIP
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from trainers.features import FeatureTrainer, add_feature_options
from trainers.parts.classes import Classes
from trainers.parts.feature_heads import PrototypeHead
from trainers.parts.prompted_model import Output, PromptedModel
from trainers.parts.teacher import mean_text_features


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.CROSSMODAL = CfgNode()
    add_feature_options(c, views=2)


@TRAINER_REGISTRY.register()
class CrossModal(FeatureTrainer):
    section, schedule_per, saved_as = "CROSSMODAL", "iteration", {"head.prototypes": "head.weight"}
    one_process_only = "each process would draw class texts of its own for its images"

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        text = mean_text_features(clip, classes, options.TEMPLATES)
        return PromptedModel(clip, head=PrototypeHead(text, "inner", 100.0), saved_as=cls.saved_as)

    @classmethod
    def bound_to_classes(cls, options: CfgNode) -> str:
        return "a row of weights for each class"

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        return {} if weights.keys() - {"logit_scale"} == {"head.weight"} else None

    def loss(self, out: Output, batch: dict) -> dict[str, Tensor]:
        texts = self.model.head.start
        labels = torch.randint(len(texts), batch["label"].shape).to(texts.device)
        scores, _ = self.model.head(texts[labels], None, self.model.clip)
        return {**super().loss(out, batch), "text_ce": F.cross_entropy(scores, labels)}
