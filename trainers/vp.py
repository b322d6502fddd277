"""VP and AR: learned pixels and the class's name in one fixed sentence.

Source: VP, Exploring Visual Prompts for Adapting Large-Scale Models (Bahng et al., 2022), and AR, a padding prompt, as
AttrVR (Cai et al., ICLR 2025) runs them: experiments/fs_vp.py and fs_ar.py.
"""
from clip import FrozenCLIP, encode_texts
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from trainers._pixel import PaddingTrainer, PixelPromptTrainer, add_pixel_options
from trainers.parts.classes import Classes
from trainers.parts.pixel_prompt import FramePrompt, PixelPrompt
from trainers.parts.prompted_model import PromptedModel


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

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        return PromptedModel(clip, pixel=FramePrompt(clip.image_size, options.WIDTH),
                             text=encode_texts(clip, classes.sentences(options.TEMPLATE)))

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        return {} if weights.keys() == {"pixel.program"} else None


@TRAINER_REGISTRY.register()
class AR(PaddingTrainer):
    """A border around the smaller image. Source: AR in AttrVR (Cai et al., ICLR 2025)"""

    section = "AR"

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        return PromptedModel(clip, pixel=PixelPrompt(clip.image_size, classes.image_size),
                             text=encode_texts(clip, classes.sentences(options.TEMPLATE)))

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        return {} if weights.keys() == {"pixel.program"} else None
