"""FLYP and CyCLIP: both towers are fine-tuned on pairs of an image and a caption, as CLIP was pre-trained.

Source: Finetune Like You Pretrain (Goyal et al., CVPR 2023), locuslab/FLYP 215d5bb, src/models/flyp_loss.py; CyCLIP
(Goel et al., NeurIPS 2022), goel-shashank/CyCLIP 707e7c7, src/train.py. What is easily missed:
- A dataset of classes gives each image a sentence of its class, one of TEMPLATES drawn at every step. Images of one
  class in a batch are then each other's negatives, in both codes; the loss does not reach 0.
- Everything learns: token embeddings, projections, the scale (CyCLIP keeps its logarithm in [0, 4.6052]).
- CyCLIP's two losses are means over B x B times B, each with weight 0.25; as published it trains from scratch, and here
  it fine-tunes. TRAIN.CYCLIP_IN_MODAL and CYCLIP_CROSS_MODAL add them to any other method.
Tests compare an image with the classes' sentences through the tuned text tower; several TEMPLATES are averaged.
"""
import random
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from clip import FrozenCLIP
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import UserError
from trainers.fine_tuning import BOTH_TOWERS, FineTuner, add_options, sentences_of
from trainers.parts.classes import Classes
from trainers.parts.heads import EnsembleHead
from trainers.parts.pairs import contrastive
from trainers.parts.prompted_model import Output, PromptedModel
from trainers.parts.sentences import CaptionTokens, TunedSentences, warn_of_captions

MOST_LOG_SCALE = 4.6052


def extend_cfg(cfg: CfgNode) -> None:
    cfg.TRAINER.FLYP = CfgNode()
    add_options(cfg.TRAINER.FLYP)
    c = cfg.TRAINER.CYCLIP = CfgNode()
    c.IN_MODAL = 0.25                   # weight of the in-modal loss; larger keeps images as far apart as their texts
    c.CROSS_MODAL = 0.25                # of the cross-modal one; larger makes cosines symmetric between pairs
    add_options(c)


@TRAINER_REGISTRY.register()
class FLYP(FineTuner):
    """Source: Finetune Like You Pretrain (Goyal et al., CVPR 2023)"""

    section, schedule_per, learns_pairs = "FLYP", "iteration", True
    one_process_only = "its loss compares the pairs of a whole batch"

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        templates = sentences_of(options)
        text = TunedSentences(clip, [classes.sentences(template) for template in templates])
        return PromptedModel(clip, text=text, head=EnsembleHead(len(templates)), tower=clip.trainable(BOTH_TOWERS))

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        return {} if {"tower.token_embedding/weight", "tower.visual/proj"} <= weights.keys() else None

    @cached_property
    def captions_of(self) -> dict[str, Sequence[str]]:
        """By path of a training image: the dataset's captions of it, or the sentences of its class."""
        own, images = getattr(self.dm.dataset, "captions", None), self.dm.dataset.train_x
        if own:
            return {item.impath: own[item.impath] for item in images}
        by_class = list(zip(*map(self.classes.sentences, sentences_of(self.options)), strict=True))
        return {item.impath: by_class[item.label] for item in images}

    @cached_property
    def tokens(self) -> CaptionTokens:
        found = dict.fromkeys(caption for captions in self.captions_of.values() for caption in captions)
        warn_of_captions(self.model.clip, list(found))
        return CaptionTokens(self.model.clip, list(found))

    def before_train(self) -> None:
        super().before_train()
        _ = self.tokens

    def captions(self, batch: dict) -> list[str]:
        """One of each image's, drawn."""
        return [random.choice(self.captions_of[path]) for path in batch["impath"]]

    def output(self, batch: dict) -> Output:
        """Of pairs: scores (B, B) of each image and the caption of each."""
        clip, images = self.model.clip, self.model.image_features(self.inputs(batch))
        texts = self.tokens.encode(clip, self.captions(batch))
        return Output(clip.scale * images @ texts.t(), images, texts)

    def pairs(self, out: Output, batch: dict) -> tuple[Tensor, Tensor]:
        return out.image_features, out.text_features

    def loss(self, out: Output, batch: dict) -> dict[str, Tensor]:
        return {"contrastive": contrastive(out.image_features, out.text_features, self.model.clip.scale)}

    def measures(self, out: Output, batch: dict) -> dict[str, Tensor]:
        """Percent of images for which no caption of the batch scores higher than their own."""
        return {"matched": 100 * (out.logits.diagonal() >= out.logits.max(dim=1).values).float().mean()}


@TRAINER_REGISTRY.register()
class CyCLIP(FLYP):
    """Source: CyCLIP (Goel et al., NeurIPS 2022)"""

    section = "CYCLIP"

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        c = cfg.TRAINER.CYCLIP
        if not min(c.IN_MODAL, c.CROSS_MODAL) >= 0:
            raise UserError("TRAINER.CYCLIP.IN_MODAL and CROSS_MODAL must be weights of at least 0, got "
                            f"{c.IN_MODAL} and {c.CROSS_MODAL}.")
        if cfg.TRAIN.CYCLIP_IN_MODAL or cfg.TRAIN.CYCLIP_CROSS_MODAL:
            raise UserError("CyCLIP has weights of its own, TRAINER.CYCLIP.IN_MODAL and CROSS_MODAL. Leave out those "
                            f"of TRAIN, got {cfg.TRAIN.CYCLIP_IN_MODAL} and {cfg.TRAIN.CYCLIP_CROSS_MODAL}.")

    @property
    def consistency_weights(self) -> tuple[float, float]:
        return self.options.IN_MODAL, self.options.CROSS_MODAL

    def register_prompts(self, learner: nn.Module) -> None:
        super().register_prompts(learner)
        self.optim.register_step_post_hook(self._keep_scale)

    @torch.no_grad()
    def _keep_scale(self, *_) -> None:
        self.model.clip.logit_scale.clamp_(0, MOST_LOG_SCALE)
