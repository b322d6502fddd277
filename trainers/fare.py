"""FARE: the image tower learns to give attacked images the features that the original tower gives the clean ones.

Source: Robust CLIP: Unsupervised Adversarial Fine-Tuning of Vision Embeddings (Schlarmann et al., ICML 2024),
chs20/RobustVLM 7de10ee, train/adversarial_training_clip.py and pgd_train.py; numbers in configs/recipes/fare.yaml.
What is easily missed:
- No label is used. The squared distance of features before their normalisation is summed over dimensions, and the mean
  over images; the attack raises the same.
- The attack keeps 0.9 of its former direction, of which the sign is taken again.
- In tests it is zero-shot CLIP with another image tower, with the dataset's own sentence.
The authors' towers are backbones as they are, e.g. MODEL.BACKBONE.NAME "hf-hub:chs20/fare2-clip".
"""
from functools import cached_property

import torch
from torch import Tensor

from clip import FrozenCLIP, encode_texts, load_clip
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from trainers.attacked import AttackedTrainer, add_attack_options
from trainers.parts.attacks import pgd
from trainers.parts.classes import Classes
from trainers.parts.heads import EmbeddingHead
from trainers.parts.prompted_model import Output, PromptedModel
from trainers.parts.released import release

MOMENTUM = 0.9                          # of the attack


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.FARE = CfgNode()
    add_attack_options(c, eps=4.0, step=1.0, steps=10)
    c.TEMPLATE = ""                     # sentence of a class in tests; "" takes the dataset's own
    c.PREC = "fp32"                     # fp32, or bf16 (autocast in training); weights themselves stay float32


def squared_distance(features: Tensor, original: Tensor) -> Tensor:
    """(B,) of features (B, D), not normalised."""
    return (features.float() - original).pow(2).sum(dim=1)


@TRAINER_REGISTRY.register()
class FARE(AttackedTrainer):
    section, schedule_per, half_towers, attacks = "FARE", "iteration", False, ("pgd",)
    _last: tuple[Tensor | None, Tensor | None] = (None, None)

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        text = encode_texts(clip, classes.sentences(options.TEMPLATE))
        return PromptedModel(clip, text=text, head=EmbeddingHead(), tower=release(clip, ".*", "vision"),
                             takes_pixels=True)

    @cached_property
    def original(self) -> FrozenCLIP:
        """The towers before anything was learned; only training asks for them."""
        with torch.random.fork_rng(devices=[]):         # layers draw what their weights then replace
            return load_clip(self.cfg.MODEL.BACKBONE.NAME, self.device)

    def targets(self, images: Tensor) -> Tensor:
        """(B, D) features of clean images by the original tower; of a batch that was asked for last, those of then."""
        if self._last[0] is not images:
            with torch.no_grad():
                normal = (images - self.model.mean) / self.model.std
                self._last = images, self.original.encode_image(normal, unit_norm=False)
        return self._last[1]

    def perturbation(self, images: Tensor, labels: Tensor) -> Tensor:
        return pgd(lambda seen: self.model.image_features(seen, unit_norm=False), images, self.targets(images),
                   *self.sizes, loss=squared_distance, momentum=MOMENTUM)

    def loss(self, out: Output, batch: dict) -> dict[str, Tensor]:
        return {"fare": squared_distance(out.aux["embeddings"], self.targets(batch["img"])).mean()}
