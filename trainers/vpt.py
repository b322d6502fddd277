"""VPT: learned tokens in the image tower, shallow or deep, against fixed sentences.

Source: Visual Prompt Tuning (Jia et al., ECCV 2022) on CLIP, as in MaPLe's trainers/vpt.py (placement "end", before
ln_pre, the sentence "a photo of a {}." for every dataset) and with DAPT's placement ("after_cls", after ln_pre).
"""
from clip import FrozenCLIP, encode_texts
from clip.templates import fill
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from trainers._base import PromptTrainer
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
    section, recordable = "VPT", True

    def build_prompts(self, clip: FrozenCLIP) -> dict:
        c = self.options
        # MaPLe keeps the first layer's tokens beside the tower and the others inside its blocks.
        self.saved_as = {"visual.tokens": ["image_encoder.VPT", *(
            f"image_encoder.transformer.resblocks.{i}.VPT_shallow" for i in range(1, c.PROMPT_DEPTH_VISION))]}
        template = c.CTX_INIT.replace("_", " ") + " {}." if c.CTX_INIT else self.template
        return {"visual": VisualPrompt(clip, c.N_CTX_VISION, c.PROMPT_DEPTH_VISION, c.DROPOUT, c.PLACEMENT),
                "bank": encode_texts(clip, fill(template, self.classnames))}
