"""LASP: context words that a text-to-text loss keeps recognisable among hand-written sentences.

Source: Language-Aware Soft Prompting (Bulat and Tzimiropoulos, CVPR 2023), authors' code 5b1e8d9, prompting/lasp.py,
which has one group of prompts; numbers in configs/recipes/lasp.yaml. What is easily missed:
- For each reference sentence the soft-max runs over the learned prompts of all classes.
- With probability 1/2, a step adds noise to all references at once, which are not normalised again.
- One vector is added to all text features, before their normalisation; the image tower's norms learn at a tenth of LR.
- The released code takes references of new classes too, by their names (NAMES "references"), and so do its published
  numbers. The paper's LASP-V compares images with them as well ("all"). Both know the new names while they train.
They train in automatic mixed precision, where they clip the gradients' norm at 1; here nothing is clipped.
"""
import math
from functools import cached_property

import torch
from torch import Tensor

from clip import FrozenCLIP, encode_texts
from clip.templates import MIXED_35, fill
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import UserError
from trainers._base import PromptTrainer
from trainers.parts.classes import Classes
from trainers.parts.heads import ShiftedHead
from trainers.parts.losses import text_to_text
from trainers.parts.prompted_model import Output, PromptedModel
from trainers.parts.text_prompt import TextPrompt

_NORMS = r"visual\.transformer\.resblocks\.\d+\.ln_[12]\..*"
NAMES = ("seen", "references", "all")


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.LASP = CfgNode()
    c.N_CTX = 4                         # context words where CTX_INIT is ""
    c.CTX_INIT = "a photo of a"         # words to start from; then N_CTX is their number
    c.TEMPLATES = []                    # reference sentences, with {} for the name; none takes the published 35
    c.W = 5.0                           # weight of the text-to-text loss; larger stays nearer to the references
    c.NOISE = 0.05                      # standard deviation of the noise on references, in every other step
    c.NORMS = True                      # the image tower's norms learn too, which needs a vision transformer
    c.NAMES = "seen"                    # of classes: seen, references (of new ones too), all (as LASP-V)
    c.PREC = "amp"                      # fp16, amp, bf16 (autocast) or fp32; a CPU runs bf16 or fp32


@TRAINER_REGISTRY.register()
class LASP(PromptTrainer):
    section, rates = "LASP", {"tower": 0.1}
    bounds = {**PromptTrainer.bounds, "NOISE": (0, math.inf)}

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        if (names := cfg.TRAINER[self.section].NAMES) not in NAMES:
            raise UserError(f"TRAINER.{self.section}.NAMES must be {', '.join(NAMES[:-1])} or {NAMES[-1]}, got "
                            f"{names!r}.")

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        c, tower = options, None
        if c.NORMS:
            clip.require_tokens("What tunes the norms of transformer blocks (TRAINER.LASP.NORMS)")
            tower = clip.trainable(_NORMS)
        for template in c.TEMPLATES:
            fill(template, classes.names[:1])                   # refuses one without a place for the name
        others = () if c.NAMES == "seen" else classes.others or ()
        text = TextPrompt(clip, [*classes.names, *others], c.N_CTX, c.CTX_INIT)
        names = {f"tower.{name}": name.replace("visual/", "image_encoder.").replace("/", ".") for name in tower or ()}
        return PromptedModel(clip, text=text, tower=tower, head=ShiftedHead(clip, len(classes), c.NAMES == "all"),
                             saved_as={"text.ctx": "ctx", "head.w": "w", **names})

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        own = {name for name in weights if not name.startswith("image_encoder.")} - {"class_text_features"}
        if own != {"ctx", "w"} or weights["ctx"].dim() != 2:
            return None                 # whether the norms were learned is not in the authors' file
        return {"N_CTX": len(weights["ctx"])}

    @cached_property
    def references(self) -> Tensor:
        """(R, C, D), unit norm; only training asks for them."""
        templates, names = self.options.TEMPLATES or MIXED_35, [*self.classes.names]
        if self.options.NAMES != "seen":
            if self.classes.others is None:
                raise UserError(f"TRAINER.LASP.NAMES {self.options.NAMES} needs the names of the classes that training "
                                "does not see, and this dataset has no other_classnames. Set NAMES seen.")
            names += self.classes.others
        sentences = [sentence for template in templates for sentence in fill(template, names)]
        return encode_texts(self.model.clip, sentences).unflatten(0, (len(templates), len(names)))

    def loss(self, out: Output, batch: dict) -> dict[str, Tensor]:
        references = self.references
        if torch.rand(1).item() < 0.5:                  # drawn on the CPU: a GPU need not wait
            references = references + self.options.NOISE * torch.randn(references.shape, device=references.device)
        return {**PromptTrainer.loss(self, out, batch),
                "text": self.options.W * text_to_text(out.aux["all_texts"], references, self.model.clip.scale)}
