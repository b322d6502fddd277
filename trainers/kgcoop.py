"""KgCoOp: CoOp's context words, whose class features are held near those of a hand-written sentence.

Source: Visual-Language Prompt Tuning with Knowledge-guided Context Optimization (Yao et al., CVPR 2023), authors' code
c43ccc3, trainers/kgcoop.py; numbers in configs/recipes/kgcoop.yaml. What is easily missed:
- The loss is W (1 - cosine), as in the code; the paper's squared distance of unit vectors is twice that.
- The context starts from "a photo of a" on every dataset; the sentence is the dataset's own, but DTD's is another one.
- The code builds a meta network, a bias and an adapter that nothing uses. Files that hold them are read.
"""
from functools import cached_property

from torch import Tensor

from clip import FrozenCLIP
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from trainers._base import PromptTrainer
from trainers.parts.classes import Classes
from trainers.parts.prompted_model import Output, PromptedModel
from trainers.parts.teacher import cosine_distance, mean_text_features
from trainers.parts.text_prompt import TextPrompt

_UNUSED = {"bias_vectors", "meta_net.linear1.weight", "meta_net.linear1.bias"}


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.KGCOOP = CfgNode()
    c.N_CTX = 4                         # context words where CTX_INIT is ""
    c.CTX_INIT = "a photo of a"         # words to start from; then N_CTX is their number
    c.TEMPLATE = ""                     # the teacher's sentence, with {} for the name; "" takes the dataset's own
    c.W = 8.0                           # weight of the distance to the teacher; larger stays nearer
    c.PREC = "fp16"                     # fp16, amp, bf16 (autocast) or fp32; a CPU runs bf16 or fp32


@TRAINER_REGISTRY.register()
class KgCoOp(PromptTrainer):
    section, saved_as = "KGCOOP", {"text.ctx": "ctx"}

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        text = TextPrompt(clip, classes.names, options.N_CTX, options.CTX_INIT)
        return PromptedModel(clip, text=text, saved_as=cls.saved_as)

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        if weights.keys() - _UNUSED != {"ctx"} or weights["ctx"].dim() != 2:
            return None
        return {"N_CTX": len(weights["ctx"])}

    @cached_property
    def teacher(self) -> Tensor:
        """(C, D), unit norm; only training asks for it."""
        return mean_text_features(self.model.clip, self.classes, (self.options.TEMPLATE,))

    def loss(self, out: Output, batch: dict) -> dict[str, Tensor]:
        return {**PromptTrainer.loss(self, out, batch),
                "distance": self.options.W * cosine_distance(out.text_features, self.teacher)}
