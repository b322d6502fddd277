"""VP and AR: learned pixels and the class's name in one fixed sentence.

Source: VP, Exploring Visual Prompts for Adapting Large-Scale Models (Bahng et al., 2022), and AR, a padding prompt, as
AttrVR (Cai et al., ICLR 2025) runs them: experiments/fs_vp.py and fs_ar.py: cosine rate per iteration, no short batch
dropped, autocast in training and float32 in testing, without loss scaling.
"""
from clip import FrozenCLIP, encode_texts
from dassl.config import CfgNode
from dassl.data.data_manager import build_data_loader
from dassl.data.transforms import build_transform
from dassl.engine import TRAINER_REGISTRY
from dassl.engine.best_test import BestTestEpoch
from trainers._base import PromptTrainer
from trainers.parts.classes import Classes
from trainers.parts.pixel_prompt import FramePrompt, PixelPrompt
from trainers.parts.prompted_model import PromptedModel


def add_pixel_options(c: CfgNode) -> None:
    c.PREC = "amp"                      # fp32; amp, bf16: training under autocast, testing in float32 (a CPU: bf16)
    c.TEST_EVERY_EPOCH = False          # also record the best test epoch, as the authors do; costs a test per epoch


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.VP = CfgNode()
    c.WIDTH = 30                        # pixels of the frame that is added to the image's border, on each side
    c.TEMPLATE = "This is a photo of {}."    # the same for every dataset, as published; "" takes the dataset's own
    add_pixel_options(c)
    c = cfg.TRAINER.AR = CfgNode()
    c.TEMPLATE = "This is a photo of {}."    # likewise
    add_pixel_options(c)


class PixelPromptTrainer(BestTestEpoch, PromptTrainer):
    """Learns pixels around or on the image."""

    schedule_per, half_towers = "iteration", False

    def build_data_loader(self) -> None:
        super().build_data_loader()
        c = self.cfg.DATALOADER.TRAIN_X
        self.train_loader_x = build_data_loader(self.cfg, c.SAMPLER, self.dm.dataset.train_x, c.BATCH_SIZE, c.N_DOMAIN,
                                                c.N_INS, build_transform(self.cfg), drop_last=False,
                                                cache=getattr(self.dm, "image_cache", None))

    def tests_every_epoch(self) -> bool:
        return self.options.TEST_EVERY_EPOCH


class PaddingTrainer(PixelPromptTrainer):
    """Learns a border around a smaller image: INPUT.SIZE is the image's, the tower's own size the canvas's."""

    normalised, border = False, True


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
