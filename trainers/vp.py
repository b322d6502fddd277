"""VP and AR: learned pixels and the class's name in one fixed sentence.

Source: VP, Exploring Visual Prompts for Adapting Large-Scale Models (Bahng et al., 2022), and AR, a padding prompt, as
AttrVR (Cai et al., ICLR 2025) runs them: experiments/fs_vp.py and fs_ar.py.
"""
from clip import FrozenCLIP, encode_texts
from clip.templates import fill
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from trainers._pixel import PaddingTrainer, PixelPromptTrainer, add_pixel_options
from trainers.parts.pixel_prompt import FramePrompt, PixelPrompt


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.VP = CfgNode()
    c.WIDTH = 30                        # pixels of the frame that is added to the image's border, on each side
    c.TEMPLATE = "This is a photo of {}."    # the same for every dataset, as published; "" takes the dataset's own
    add_pixel_options(c)
    c = cfg.TRAINER.AR = CfgNode()
    c.TEMPLATE = "This is a photo of {}."    # likewise
    add_pixel_options(c)


@TRAINER_REGISTRY.register()
class VP(PixelPromptTrainer):
    """A frame added to the normalised image.

    Source: Exploring Visual Prompts for Adapting Large-Scale Models (Bahng et al., 2022)
    """

    section = "VP"

    def build_prompts(self, clip: FrozenCLIP) -> dict:
        return {"pixel": FramePrompt(clip.image_size, self.options.WIDTH), "bank": class_sentences(self, clip)}


@TRAINER_REGISTRY.register()
class AR(PaddingTrainer):
    """A border around the smaller image. Source: AR in AttrVR (Cai et al., ICLR 2025)"""

    section = "AR"

    def build_prompts(self, clip: FrozenCLIP) -> dict:
        return {"pixel": PixelPrompt(clip.image_size, self.inner), "bank": class_sentences(self, clip)}


def class_sentences(trainer: PixelPromptTrainer, clip: FrozenCLIP):
    """(C, D): features of each class's name in the trainer's template."""
    return encode_texts(clip, fill(trainer.options.TEMPLATE or trainer.template, trainer.classnames))
