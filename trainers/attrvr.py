"""AttrVR: one padding prompt, and per class the descriptions that match the image best.

Source: Attribute-based Visual Reprogramming for Vision-Language Models (Cai et al., ICLR 2025),
experiments/fs_attrvr.py.
"""
import random
from functools import partial
from pathlib import Path

import torch
from torch import nn

from clip import FrozenCLIP, encode_texts
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import UserError
from dassl.utils.tools import write_json
from trainers._checks import as_user_error
from trainers.parts.classes import Classes
from trainers.parts.description_bank import DescriptionBank
from trainers.parts.descriptions import sample_descriptions
from trainers.parts.label_mapping import TopKMean
from trainers.parts.pixel_prompt import PixelPrompt
from trainers.parts.prompted_model import PromptedModel
from trainers.vp import PaddingTrainer, add_pixel_options

MOST_DESCRIPTIONS = 1000                # of a class; published are 20


def add_description_options(c: CfgNode) -> None:
    c.DESCRIPTIONS = ""                 # folder of <stem>_<kind>.json or <kind>.json; "" searches, then downloads
    c.NUM_DESCRIPTIONS = 20             # m, drawn for each class (and cause); more cost text passes, once
    c.TOP_K = 3                         # best descriptions of a class that count
    add_pixel_options(c)


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.ATTRVR = CfgNode()
    add_description_options(c)
    c.ALPHA = 0.5                       # weight of what describes a class; 1 - ALPHA of what distinguishes it


class DescriptionTrainer(PaddingTrainer):
    """Classifies by sentences about each class. They are drawn when training starts and saved in the checkpoint, so
    that testing and resuming need no file; descriptions.json in the run folder shows them.
    """

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        if not 1 <= (m := cfg.TRAINER[self.section].NUM_DESCRIPTIONS) <= MOST_DESCRIPTIONS:
            raise UserError(f"TRAINER.{self.section}.NUM_DESCRIPTIONS must be 1 to {MOST_DESCRIPTIONS}, got {m}.")

    @classmethod
    def kinds(cls, options: CfgNode) -> list[str]:
        """Kinds of descriptions, see `load_descriptions`; NUM_DESCRIPTIONS of each are drawn for every class."""
        raise TypeError(f"{cls.__name__} does not say which descriptions it reads; define kinds(cls, options).")

    @classmethod
    def bound_to_classes(cls, options: CfgNode) -> str:
        return "descriptions of each class, which are saved with the prompts"

    @classmethod
    def bank(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode, mapping: nn.Module, assign=None):
        kinds = cls.kinds(options)
        return DescriptionBank(len(classes), len(kinds) * options.NUM_DESCRIPTIONS,
                               partial(_draw, classes, kinds, options.DESCRIPTIONS, options.NUM_DESCRIPTIONS),
                               partial(encode_texts, clip), mapping, assign)

    def before_train(self) -> None:
        if not self.cfg.RESUME:                  # a missing file is reported before anything is written
            self.fill_bank()
        super().before_train()
        self.fill_bank()
        write_json(dict(zip(self.classes.names, self.model.head.sentences, strict=True)),
                   str(Path(self.output_dir, "descriptions.json")))

    @as_user_error()
    @torch.no_grad()
    def fill_bank(self) -> None:
        self.model.head.fill()


@as_user_error()
def _draw(classes: Classes, kinds: list[str], path: str, m: int) -> list[list[str]]:
    """C lists of sentences, kind after kind, from a random stream of their own that starts at the run's seed."""
    rng = random.Random(classes.seed if classes.seed >= 0 else random.getrandbits(64))      # alike in all processes
    groups = [sample_descriptions(classes.describe(kind, path), m, rng) for kind in kinds]
    return [sum(own, []) for own in zip(*groups, strict=True)]


@TRAINER_REGISTRY.register()
class AttrVR(DescriptionTrainer):
    section = "ATTRVR"

    @classmethod
    def kinds(cls, options: CfgNode) -> list[str]:
        return ["des", "dist"]

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        mapping = TopKMean(options.NUM_DESCRIPTIONS, options.TOP_K, (options.ALPHA, 1 - options.ALPHA))
        return PromptedModel(clip, pixel=PixelPrompt(clip.image_size, classes.image_size),
                             head=cls.bank(clip, classes, options, mapping))

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        if weights.keys() != {"pixel.program", "bank.prompt_of", "bank.text"}:
            return None
        return {"NUM_DESCRIPTIONS": weights["bank.prompt_of"].shape[1] // 2}
