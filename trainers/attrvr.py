"""AttrVR: one padding prompt, and per class the descriptions that match the image best.

Source: Attribute-based Visual Reprogramming for Vision-Language Models (Cai et al., ICLR 2025),
experiments/fs_attrvr.py.
"""
from clip import FrozenCLIP
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from trainers._pixel import DescriptionTrainer, add_description_options
from trainers.parts.label_mapping import TopKMean
from trainers.parts.pixel_prompt import PixelPrompt


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.ATTRVR = CfgNode()
    add_description_options(c)
    c.ALPHA = 0.5                       # weight of what describes a class; 1 - ALPHA of what distinguishes it


@TRAINER_REGISTRY.register()
class AttrVR(DescriptionTrainer):
    section = "ATTRVR"

    def kinds(self) -> list[str]:
        return ["des", "dist"]

    def build_prompts(self, clip: FrozenCLIP) -> dict:
        c = self.options
        mapping = TopKMean(c.NUM_DESCRIPTIONS, c.TOP_K, (c.ALPHA, 1 - c.ALPHA))
        return {"pixel": PixelPrompt(clip.image_size, self.inner), "bank": self.build_bank(clip, mapping)}
