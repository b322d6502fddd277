"""CoCoOp: learned context words that a small network shifts for every image.

Source: Conditional Prompt Learning for Vision-Language Models (Zhou et al., CVPR 2022), trainers/cocoop.py; numbers in
configs/recipes/cocoop.yaml. The authors train with batch 1, because every image needs a text pass of its own; here the
batch is limited by time only.
"""
from torch import nn

from clip import FrozenCLIP
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from trainers._base import PromptTrainer
from trainers.parts.meta_net import ConditionalCLIP
from trainers.parts.text_prompt import TextPrompt


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.COCOOP = CfgNode()
    c.N_CTX = 16                        # context words; more fit better and transfer worse
    c.CTX_INIT = ""                     # words to start from, e.g. "a photo of a"; then N_CTX is their number of tokens
    c.PREC = "fp16"                     # fp16, amp, bf16 (autocast) or fp32; a CPU runs bf16 or fp32


@TRAINER_REGISTRY.register()
class CoCoOp(PromptTrainer):
    section, recordable = "COCOOP", True
    saved_as = {"text.ctx": "ctx"}

    def build_classifier(self, clip: FrozenCLIP) -> nn.Module:
        c = self.options
        text = TextPrompt(clip, self.classnames, c.N_CTX, c.CTX_INIT)
        return ConditionalCLIP(clip, text, self.saved_as)
