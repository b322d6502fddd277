"""VPTFull: visual tokens in the blocks of the image tower and a linear classifier, as VPT's paper has it; no texts.

Source: Visual Prompt Tuning (Jia et al., ECCV 2022), KMnP/vpt, on CLIP's image tower. What is easily missed:
- Tokens stand between class token and patches, each block has its own (deep), and they are drawn from U(-v, v).
- The classifier reads the class token after the last norm, before CLIP's projection.
- Where it was published, rate and decay are sought for every dataset on 800 of its 1,000 images.
The classifier starts at zero. `VPT` compares with texts instead, as the prompt-learning papers run it.
"""
from clip import FrozenCLIP
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from trainers._base import PromptTrainer
from trainers.parts.classes import Classes
from trainers.parts.heads import LinearHead
from trainers.parts.prompted_model import PromptedModel
from trainers.parts.visual_prompt import VisualPrompt


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.VPTFULL = CfgNode()
    c.N = 10                            # tokens of each prompted block; the paper tries 1 to 200
    c.DEPTH = 0                         # prompted blocks from the first; 1 is shallow, 0 is all of them
    c.DROPOUT = 0.1                     # share of a token's entries that are left out, in training
    c.PREC = "fp16"                     # fp16, amp, bf16 (autocast) or fp32; a CPU runs bf16 or fp32


@TRAINER_REGISTRY.register()
class VPTFull(PromptTrainer):
    section, needs_vit = "VPTFULL", True

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        c = options
        clip.require_tokens("A visual prompt")
        return PromptedModel(clip, visual=VisualPrompt(clip, c.N, c.DEPTH or clip.depth, c.DROPOUT),
                             head=LinearHead(clip, len(classes), joint=False))

    @classmethod
    def bound_to_classes(cls, options: CfgNode) -> str:
        return "a linear classifier"

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        if weights.keys() != {"visual.tokens", "head.weight", "head.bias"}:
            return None
        depth, n, _ = weights["visual.tokens"].shape
        return {"N": n, "DEPTH": depth}
