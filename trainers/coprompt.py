"""CoPrompt: MaPLe's prompts and an adapter behind each tower, held near a frozen CLIP that is given something else.

Source: Consistency-guided Prompt Learning (Roy and Etemad, ICLR 2024), authors' code a2a6c12, trainers/coprompt.py;
numbers in configs/recipes/coprompt.yaml. What is easily missed:
- The teacher gets another augmented view of each image, and one sentence about each class; a step draws the number of
  the sentence once, for all classes, which therefore need as many.
- Adapters act on features before their normalisation and end in a ReLU; they are part of the classifier in tests too.
- Depth, words and weight differ between datasets: the authors' constants.py wins over their yaml.
Their files of sentences (gpt_file) can be named with DESCRIPTIONS, with NUM_DESCRIPTIONS 0 to have them as they are.
"""
import logging
import random
from functools import cached_property

import torch
from torch import Tensor

from clip import FrozenCLIP, encode_texts
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import UserError
from trainers.errors import as_user_error
from trainers.maple import MaPLe
from trainers.parts.adapter_head import AdapterHead
from trainers.parts.classes import Classes
from trainers.parts.descriptions import sample_descriptions
from trainers.parts.prompted_model import Output, PromptedModel
from trainers.parts.teacher import cosine_distance

logger = logging.getLogger(__name__)
_ADAPTERS = {f"head.{tower}.fc.{i}.weight": f"adapter_{tower}.fc.{i}.weight"
             for tower in ("image", "text") for i in (0, 2)}


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.COPROMPT = CfgNode()
    c.N_CTX = 2                         # learned words, and as many visual tokens; more fit better and transfer worse
    c.CTX_INIT = "a photo of a"         # words whose first N_CTX are learned from there; "" or N_CTX > 4: random
    c.PROMPT_DEPTH = 9                  # blocks of both towers with tokens of their own; 1 is shallow
    c.W = 1.0                           # weight of both distances to the frozen CLIP; larger stays nearer
    c.IMAGE_SHARE = 0.1                 # of image features that the adapter makes; above 0, at most 1
    c.TEXT_SHARE = 0.2                  # the same for text features
    c.DESCRIPTIONS = ""                 # file, or folder of <stem>_des.json or des.json; "" searches, then downloads
    c.NUM_DESCRIPTIONS = 20             # sentences drawn for each class; 0 takes all of them, as many for each class
    c.PREC = "fp16"                     # fp16, amp, bf16 (autocast) or fp32; a CPU runs bf16 or fp32


@TRAINER_REGISTRY.register()
class CoPrompt(MaPLe):
    section = "COPROMPT"
    bounds = {**MaPLe.bounds, "NUM_DESCRIPTIONS": (0, 4096)}

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        if (k := cfg.DATALOADER.K_TRANSFORMS) != 1:
            raise UserError(f"CoPrompt makes its two views of an image itself: leave out DATALOADER.K_TRANSFORMS {k}.")

    def build_data_loader(self) -> None:
        super().build_data_loader()
        images = self.train_loader_x.dataset
        images.transform = [images.transform, images.transform]         # "img" and "img2", each drawn for itself

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        if not 0 < min(shares := (options.IMAGE_SHARE, options.TEXT_SHARE)):
            raise UserError(f"TRAINER.COPROMPT.IMAGE_SHARE and TEXT_SHARE must be above 0, got {shares}.")
        maple = super().build(clip, classes, options)
        return PromptedModel(clip, **{part: maple.brick(part) for part in ("text", "visual", "text_tuner")},
                             head=AdapterHead(clip, *shares), saved_as=maple.prompt_learner.saved_as | _ADAPTERS)

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        adapters = set(_ADAPTERS.values())
        own = {k: v for k, v in weights.items() if k not in adapters and not k.startswith("model_distill.")}
        return super().options_of(own) if adapters <= weights.keys() else None

    @cached_property
    def descriptions(self) -> Tensor:
        """(m, C, D), unit norm; only training asks for them."""
        c = self.options
        with as_user_error():
            sentences = self.classes.describe("des", c.DESCRIPTIONS)
            if c.NUM_DESCRIPTIONS:
                sentences = sample_descriptions(sentences, c.NUM_DESCRIPTIONS, random.Random(max(self.cfg.SEED, 0)))
        if len(counts := sorted({len(own) for own in sentences})) > 1:
            raise UserError(f"CoPrompt needs as many sentences about each class, got {counts[0]} to {counts[-1]}. Set "
                            "TRAINER.COPROMPT.NUM_DESCRIPTIONS to draw so many for each.")
        features = encode_texts(self.model.clip, [sentence for own in sentences for sentence in own])
        return features.unflatten(0, (len(sentences), -1)).transpose(0, 1)

    def before_train(self) -> None:
        logger.info("The frozen CLIP reads %d sentences about each of %d classes", *self.descriptions.shape[:2])
        super().before_train()

    def loss(self, out: Output, batch: dict) -> dict[str, Tensor]:
        texts = self.descriptions[random.randrange(len(self.descriptions))]                   # (C, D)
        with torch.no_grad():
            images = self.model.clip.encode_image(*self.on_device(batch["img2"]))             # (B, D)
        return {**MaPLe.loss(self, out, batch),
                "text": self.options.W * cosine_distance(out.text_features, texts),
                "image": self.options.W * cosine_distance(out.image_features, images)}
