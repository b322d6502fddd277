"""What AttrVR and DVP share: classes are sentences, drawn once and saved with the prompts.

Source: AttrVR (Cai et al., ICLR 2025) and DVP (Cai et al., ICML 2025), experiments/fs_*.py.
"""
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from clip import FrozenCLIP, encode_texts
from dassl.config import CfgNode
from dassl.utils.tools import write_json
from trainers.errors import as_user_error
from trainers.parts.classes import Classes
from trainers.parts.description_bank import DescriptionBank
from trainers.parts.descriptions import sample_descriptions
from trainers.vp import PaddingTrainer, add_pixel_options

MOST_DESCRIPTIONS = 1000                # of a class; published are 20


def add_description_options(c: CfgNode) -> None:
    c.DESCRIPTIONS = ""                 # folder of <stem>_<kind>.json or <kind>.json; "" searches, then downloads
    c.NUM_DESCRIPTIONS = 20             # m, drawn for each class (and cause); more cost text passes, once
    c.TOP_K = 3                         # best descriptions of a class that count
    add_pixel_options(c)


class DescriptionTrainer(PaddingTrainer):
    """Classifies by sentences about each class. They are drawn when training starts and saved in the checkpoint, so
    that testing and resuming need no file; descriptions.json in the run folder shows them.

    Attributes:
        told_by: what a checkpoint of v numbered prompts (0: of a single one) and m descriptions of each class tells of
            the options; None: it is another method's.
    """

    told_by: Callable[[int, int], dict | None] = staticmethod(lambda v, m: None)
    bounds = {**PaddingTrainer.bounds, "NUM_DESCRIPTIONS": (1, MOST_DESCRIPTIONS)}

    @classmethod
    def kinds(cls, options: CfgNode) -> list[str]:
        """Kinds of descriptions, see `load_descriptions`; NUM_DESCRIPTIONS of each are drawn for every class."""
        raise TypeError(f"{cls.__name__} does not say which descriptions it reads; define kinds(cls, options).")

    @classmethod
    def bound_to_classes(cls, options: CfgNode) -> str:
        return "descriptions of each class, which are saved with the prompts"

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        pixels, of = {name for name in weights if name.startswith("pixel.")}, weights.get("bank.prompt_of")
        if not pixels or of is None or of.dim() != 2 \
                or weights.keys() - pixels - {"bank.mapping.weights"} != {"bank.prompt_of", "bank.text"}:
            return None
        return cls.told_by(0 if pixels == {"pixel.program"} else len(pixels), of.shape[1])

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

    def use_stand_ins(self) -> None:
        head, D = self.model.head, self.model.clip.embed_dim
        C, m = head.prompt_of.shape
        head.draw = lambda: [["a description"] * m] * C
        head.encode = lambda sentences: F.normalize(torch.randn(len(sentences), D, device=self.device), dim=-1)
        self.fill_bank()

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
