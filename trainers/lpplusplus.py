"""LPPlusPlus: a linear probe whose classes also count their texts, with start and step sizes from the features.

Source: LP++ (Huang et al., CVPR 2024), authors' code f81054f, methods/linear_probe_p2.py. What is easily missed: one
random crop of each image, of which all go through every step; the bias starts at random; of 300 steps the last of those
that are best on the validation images counts. See `trainers.parts.lp_plus_plus`.
"""
import math

import torch
import torch.nn.functional as F

from clip import FrozenCLIP
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from trainers.errors import as_user_error
from trainers.features import add_feature_options
from trainers.parts.classes import Classes
from trainers.parts.feature_heads import BlendHead
from trainers.parts.lp_plus_plus import descend, start_of
from trainers.parts.prompted_model import PromptedModel
from trainers.parts.teacher import mean_text_features
from trainers.selecting import SelectingTrainer


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.LPPLUSPLUS = CfgNode()
    c.STEPS = 300                       # of gradient descent, over all images each
    c.SELECT = "val"                    # where the step is chosen: "val", "test", or "fixed", which is the last one
    add_feature_options(c)


@TRAINER_REGISTRY.register()
class LPPlusPlus(SelectingTrainer):
    section, learns = "LPPLUSPLUS", "closed form"
    saved_as = {"head.weight": "classifier.weight", "head.bias": "classifier.bias", "head.text_weight": "alpha_vec"}
    one_process_only = "its steps take the features of all images at once"
    bounds = {**SelectingTrainer.bounds, "STEPS": (1, math.inf)}

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        text = mean_text_features(clip, classes, options.TEMPLATES)
        return PromptedModel(clip, text=text, head=BlendHead(clip, len(classes), clip.scale.item()),
                             saved_as=cls.saved_as)

    @classmethod
    def bound_to_classes(cls, options: CfgNode) -> str:
        return "a row of weights for each class"

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        return {} if weights.keys() == set(cls.saved_as.values()) else None

    def run_epoch(self) -> None:
        c, head, (features, labels) = self.options, self.model.head, self.every_view()
        text = F.normalize(self.model.fixed_text, dim=-1)
        images = self.selection_images() if c.SELECT != "fixed" else None
        with as_user_error():
            start = start_of(features, labels, text)
        head.bias.data.uniform_(-1, 1).div_(math.sqrt(features.shape[1]))
        best = -1, 0, {}
        for step, _ in enumerate(descend(head, start, features, labels, text, self.model.clip, c.STEPS), 1):
            if images is not None and (right := self.right_answers(*images)) >= best[0]:
                best = right, step, {name: value.clone() for name, value in head.state_dict().items()}
        if images is not None:
            with torch.no_grad():
                head.load_state_dict(best[2])
            self.say_chosen("the step", f"step {best[1]} of {c.STEPS}", 100 * best[0] / len(images[1]))
