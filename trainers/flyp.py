"""FLYP: both towers are fine-tuned on pairs of an image and a caption, as CLIP was pre-trained.

Source: Finetune Like You Pretrain (Goyal et al., CVPR 2023), locuslab/FLYP 215d5bb, src/models/flyp_loss.py. What is
easily missed:
- A dataset of classes gives each image a sentence of its class, one of TEMPLATES drawn at every step. Images of one
  class in a batch are then each other's negatives, in both codes; the loss does not reach 0.
- Everything learns: token embeddings, projections, the scale.
Tests compare an image with the classes' sentences through the tuned text tower; several TEMPLATES are averaged.
"""
import random
from collections.abc import Sequence
from functools import cached_property

from torch import Tensor

from clip import FrozenCLIP
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from trainers.fine_tuning import BOTH_TOWERS, FineTuner, add_options, sentences_of
from trainers.parts.classes import Classes
from trainers.parts.heads import EnsembleHead
from trainers.parts.pairs import contrastive
from trainers.parts.prompted_model import Output, PromptedModel
from trainers.parts.sentences import CaptionTokens, TunedSentences, warn_of_captions


def extend_cfg(cfg: CfgNode) -> None:
    cfg.TRAINER.FLYP = CfgNode()
    add_options(cfg.TRAINER.FLYP)


@TRAINER_REGISTRY.register()
class FLYP(FineTuner):
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
