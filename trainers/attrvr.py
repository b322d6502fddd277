"""AttrVR: one padding prompt, and per class the descriptions that match the image best.

Source: Attribute-based Visual Reprogramming for Vision-Language Models (Cai et al., ICLR 2025),
experiments/fs_attrvr.py.
"""
from clip import FrozenCLIP
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from trainers.described import DescriptionTrainer, add_description_options
from trainers.parts.classes import Classes
from trainers.parts.label_mapping import TopKMean
from trainers.parts.pixel_prompt import PixelPrompt
from trainers.parts.prompted_model import PromptedModel


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.ATTRVR = CfgNode()
    add_description_options(c)
    c.ALPHA = 0.5                       # weight of what describes a class; 1 - ALPHA of what distinguishes it


@TRAINER_REGISTRY.register()
class AttrVR(DescriptionTrainer):
    section = "ATTRVR"
    bounds = {**DescriptionTrainer.bounds, "ALPHA": (0, 1)}
    told_by = staticmethod(lambda v, m: None if v else {"NUM_DESCRIPTIONS": m // 2})

    @classmethod
    def kinds(cls, options: CfgNode) -> list[str]:
        return ["des", "dist"]

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        mapping = TopKMean(options.NUM_DESCRIPTIONS, options.TOP_K, (options.ALPHA, 1 - options.ALPHA))
        return PromptedModel(clip, pixel=PixelPrompt(clip.image_size, classes.image_size),
                             head=cls.bank(clip, classes, options, mapping))
