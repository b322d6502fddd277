"""CoCoOp: learned context words that a small network shifts for every image.

Source: Conditional Prompt Learning for Vision-Language Models (Zhou et al., CVPR 2022), trainers/cocoop.py; numbers in
configs/recipes/cocoop.yaml. The authors train with batch 1, because every image needs a text pass of its own; here the
batch is limited by time only.
"""
from clip import FrozenCLIP
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from trainers._base import PromptTrainer
from trainers.parts.classes import Classes
from trainers.parts.meta_net import ConditionalPrompt
from trainers.parts.prompted_model import PromptedModel


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.COCOOP = CfgNode()
    c.N_CTX = 16                        # context words; more fit better and transfer worse
    c.CTX_INIT = ""                     # words to start from, e.g. "a photo of a"; then N_CTX is their number
    c.PREC = "fp16"                     # fp16, amp, bf16 (autocast) or fp32; a CPU runs bf16 or fp32


@TRAINER_REGISTRY.register()
class CoCoOp(PromptTrainer):
    section = "COCOOP"
    saved_as = {"text.ctx": "ctx", **{f"text.meta_net.{name}": f"meta_net.{name}" for name in (
        "linear1.weight", "linear1.bias", "linear2.weight", "linear2.bias")}}

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        text = ConditionalPrompt(clip, classes.names, options.N_CTX, options.CTX_INIT)
        return PromptedModel(clip, text=text, saved_as=cls.saved_as)

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        if weights.keys() != set(cls.saved_as.values()) or weights["ctx"].dim() != 2:
            return None
        hidden, D = weights["meta_net.linear1.weight"].shape
        return {"N_CTX": len(weights["ctx"])} if hidden == max(1, D // 16) else None
