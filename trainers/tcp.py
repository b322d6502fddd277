"""TCP: context words that one block of the text tower exchanges for words made from the class's frozen features.

Source: Textual-based Class-aware Prompt Tuning (Yao et al., CVPR 2024), authors' code bd97bec, trainers/tcp.py and
trainers/clip_text; numbers in configs/recipes/tcp.yaml. What is easily missed:
- The words enter the ninth block (BLOCK 8) alone, in full; below it the shared context words are learned too.
- The learned prompt ends as the dataset asks (PROMPT), in other words than the teacher's sentence (TEMPLATE).
- The weight on the distance is 8, whatever the authors' option W says, which only names folders.
- Adam with eps 1e-3 (in half precision the usual one gives NaN), and with weight decay inside.
New classes get words of their own from their frozen features, by what was learned.
"""
import torch
from torch import Tensor, nn

from clip import FrozenCLIP, embed_texts
from clip.templates import fill
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import UserError
from trainers._base import PromptTrainer
from trainers.parts.class_prompt import ClassPrompt
from trainers.parts.classes import Classes
from trainers.parts.prompted_model import Output, PromptedModel
from trainers.parts.teacher import cosine_distance, mean_text_features
from trainers.parts.text_prompt import TextPrompt

_LAYERS = [f"linear{i}.{kind}" for i in (1, 2) for kind in ("weight", "bias")]


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.TCP = CfgNode()
    c.N_CTX = 4                         # context words, and class-aware ones
    c.CTX_INIT = ""                     # words that the context starts from, e.g. "a photo of a"; "" is random
    c.PROMPT = ""                       # sentence whose first N_CTX words are learned; "" is "X X X X {}."
    c.TEMPLATE = ""                     # the teacher's sentence, with {} for the name; "" takes the dataset's own
    c.BLOCK = 8                         # of the text tower, from 0, that the class-aware words enter
    c.W = 8.0                           # weight of the distance to the teacher; larger stays nearer
    c.PREC = "fp16"                     # fp16, amp, bf16 (autocast) or fp32; a CPU runs bf16 or fp32


@TRAINER_REGISTRY.register()
class TCP(PromptTrainer):
    section = "TCP"
    saved_as = {"text.ctx": "ctx", **{f"text_tuner.{name}": f"meta_net.{name}" for name in _LAYERS}}

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        c, n = options, options.N_CTX
        before, ending = _around_name(c.PROMPT or " ".join(["X"] * n) + " {}.")
        text = TextPrompt(clip, classes.names, init=before, n_learned=n, ending=ending)
        with torch.no_grad():
            if c.CTX_INIT:
                words = embed_texts(clip, [c.CTX_INIT]).embeddings[0, 1:-1]
                if len(words) != n:
                    raise UserError(f"TRAINER.TCP.CTX_INIT must have {n} tokens (N_CTX), {c.CTX_INIT!r} has "
                                    f"{len(words)}.")
                text.ctx.copy_(words)
            else:
                nn.init.normal_(text.ctx, std=0.02)
        words = ClassPrompt(clip, mean_text_features(clip, classes, (c.TEMPLATE,)), n, c.BLOCK)
        return PromptedModel(clip, text=text, text_tuner=words, saved_as=cls.saved_as)

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        if weights.keys() != set(cls.saved_as.values()) or weights["ctx"].dim() != 2:
            return None
        hidden, D = weights["meta_net.linear1.weight"].shape
        return {"N_CTX": len(weights["ctx"])} if hidden == max(1, D // 4) else None

    def loss(self, out: Output, batch: dict) -> dict[str, Tensor]:
        teacher = self.model.brick("text_tuner").teacher
        return {**PromptTrainer.loss(self, out, batch),
                "distance": self.options.W * cosine_distance(out.text_features, teacher)}


def _around_name(sentence: str) -> tuple[str, str]:
    fill(sentence, [])                          # raises where there is not one {}
    before, ending = sentence.split("{}")
    return before.strip(), ending
