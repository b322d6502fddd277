"""VPT: learned tokens in the image tower, shallow or deep, against fixed sentences.

Source: Visual Prompt Tuning (Jia et al., ECCV 2022) on CLIP, as in MaPLe's trainers/vpt.py (placement "end", before
ln_pre, the sentence "a photo of a {}." for every dataset) and with DAPT's placement ("after_cls", after ln_pre).
"""
from clip import FrozenCLIP, encode_texts
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from trainers._base import PromptTrainer
from trainers.parts.classes import Classes
from trainers.parts.prompted_model import PromptedModel
from trainers.parts.visual_prompt import VisualPrompt


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.VPT = CfgNode()
    c.N_CTX_VISION = 8                  # visual tokens; more fit better and cost time
    c.PROMPT_DEPTH_VISION = 1           # blocks with tokens of their own: 1 is shallow, the tower's depth is deep
    c.DROPOUT = 0.0                     # on the tokens, in training
    c.PLACEMENT = "end"                 # "end" (MaPLe: behind the patches, before ln_pre) or "after_cls" (DAPT)
    c.CTX_INIT = "a photo of a"         # fixed words before the class name; "" takes the dataset's own template
    c.PREC = "fp32"                     # fp16, amp, bf16 (autocast) or fp32; a CPU runs bf16 or fp32


@TRAINER_REGISTRY.register()
class VPT(PromptTrainer):
    section, needs_vit = "VPT", True

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        c = options
        template = c.CTX_INIT.replace("_", " ") + " {}." if c.CTX_INIT else ""
        visual = VisualPrompt(clip, c.N_CTX_VISION, c.PROMPT_DEPTH_VISION, c.DROPOUT, c.PLACEMENT)
        return PromptedModel(clip, text=encode_texts(clip, classes.sentences(template)), visual=visual,
                             saved_as={"visual.tokens": _names(c.PROMPT_DEPTH_VISION)})

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        if weights.keys() != set(_names(len(weights))) or {tokens.dim() for tokens in weights.values()} != {2}:
            return None
        return {"N_CTX_VISION": len(weights["image_encoder.VPT"]), "PROMPT_DEPTH_VISION": len(weights)}


def _names(depth: int) -> list[str]:
    """MaPLe keeps the first layer's tokens outside the tower and the others inside its blocks."""
    return ["image_encoder.VPT", *(f"image_encoder.transformer.resblocks.{i}.VPT_shallow" for i in range(1, depth))]
