"""PromptAlign: MaPLe's prompts tuned for each image until its views agree and their tokens look like the source's.

Source: Align Your Prompts (Hassan et al., NeurIPS 2023), jameelhassan/PromptAlign bfe32b9 trainers/prompt_align.py.
What is easily missed: of LAYERS blocks only the first LAYERS - 1 are aligned, and the weight is divided by LAYERS; the
statistics are of each token by itself. They are those of the training images, made in one epoch and saved with the
prompts, which come from a run of MaPLe (MODEL.INIT_WEIGHTS): test other datasets with --eval-only.
"""
from __future__ import annotations

import logging

import torch
from torch import Tensor

from clip import FrozenCLIP
from dassl.config import CfgNode
from dassl.data.transforms.views import Views
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import UserError
from trainers.adapting import AdaptingTrainer, check_views
from trainers.errors import as_user_error
from trainers.maple import MaPLe
from trainers.parts.classes import Classes
from trainers.parts.one_by_one import tune_one_by_one
from trainers.parts.prompted_model import PromptedModel
from trainers.parts.token_statistics import TokenStatistics, aligned_entropy, watched_features

logger = logging.getLogger(__name__)
_STATISTICS = ("statistics.means", "statistics.variances", "statistics.images")


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.PROMPTALIGN = CfgNode()
    c.N_CTX = 2                         # as MaPLe's; those of a run that it starts from win
    c.CTX_INIT = "a photo of a"         # words to start from
    c.PROMPT_DEPTH = 3                  # blocks of both towers with tokens of their own
    c.VIEWS = 64                        # of each image, the plain one among them
    c.SELECT = 0.1                      # share of views, the most confident, that are made to agree and aligned
    c.STEPS = 1                         # of AdamW for each image
    c.LR = 0.04                         # its rate; published for ImageNet's variants, 5e-4 for fine-grained datasets
    c.LAYERS = 3                        # blocks of the published formula, see above
    c.WEIGHT = 100.0                    # of the alignment, against the entropy
    c.AUGMIX = False                    # AugMix on the crops
    c.PREC = "fp16"                     # fp16, amp, bf16 (autocast) or fp32; a CPU runs bf16 or fp32


@TRAINER_REGISTRY.register()
class PromptAlign(AdaptingTrainer):
    section, learns, adapts, needs_vit = "PROMPTALIGN", "closed form", "image", True

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        c = cfg.TRAINER.PROMPTALIGN
        check_views(self.section, c)
        if c.STEPS < 1 or c.LAYERS < 2:
            raise UserError("TRAINER.PROMPTALIGN needs STEPS of at least 1 and LAYERS of at least 2, got "
                            f"{c.STEPS} and {c.LAYERS}.")

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        model = MaPLe.build(clip, classes, options)
        model.prompt_learner["statistics"] = TokenStatistics(clip, options.LAYERS - 1, options.N_CTX)
        return model

    @classmethod
    def starting_from(cls, options: CfgNode, weights: dict[str, Tensor], learned_with: CfgNode) -> CfgNode:
        return CfgNode({**options, **(MaPLe.options_of(weights) or {})})

    @classmethod
    def options_of(cls, weights: dict[str, Tensor]) -> dict | None:
        prompts = {name: value for name, value in weights.items() if name not in _STATISTICS}
        found = MaPLe.options_of(prompts) if len(weights) == len(prompts) + len(_STATISTICS) else None
        return None if found is None else {**found, "LAYERS": len(weights["statistics.means"]) + 1}

    @classmethod
    def test_transform(cls, cfg: CfgNode) -> Views:
        return Views(cfg, cfg.TRAINER.PROMPTALIGN.VIEWS, cfg.TRAINER.PROMPTALIGN.AUGMIX)

    def run_epoch(self) -> None:
        statistics = self.model.brick("statistics")
        with as_user_error(), torch.no_grad(), self.mixed.autocast():
            statistics.fill(watched_features(self.model, images, len(statistics.means))[1]
                            for images, _ in self.training_images("test"))

    @classmethod
    def predict(cls, model: PromptedModel, images: Tensor, options: CfgNode) -> Tensor:
        """Views (B, V, 3, H, W) to logits (B, C) of the first of each image, which are tuned one after the other."""
        c, weight = options, options.WEIGHT / options.LAYERS
        if not model.brick("statistics").images:
            weight = 0.0
            logger.warning("There are no token statistics of a source, so views are only made to agree. They are made "
                           "from the training images of a run, before its test.")
        learned = [p for p in model.prompt_learner.parameters() if p.requires_grad]
        return tune_one_by_one(
            images, learned, lambda views: aligned_entropy(model, views, c.SELECT, weight),
            lambda views: model.clip.scale * model.image_features(views[:1]) @ model.text_for_head().t(), c.LR, c.STEPS)
