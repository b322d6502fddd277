"""EVP: pixels around a smaller image, moved by a step of the same length whatever their gradient's.

Source: Unleashing the Power of Visual Prompting At the Pixel Level (Wu et al., TMLR 2024), UCSC-VLAA/EVP 96b7131,
main.py. What is easily missed:
- The gradient is divided by its norm over the whole canvas, the image's place included, and then cut to the border.
- Plain steps: no momentum, no weight decay (OPTIM.MOMENTUM 0, WEIGHT_DECAY 0); the rate is in pixel values of [0, 1].
- The border starts from 0 (black) and is not kept in [0, 1]; all of it is learned, 30 pixels around 164 at 224.
- Inputs are diverse: a flip, and a random crop of the image at its own size.
- Class names are in lower case with spaces for hyphens, and the sentence has no full stop. The authors keep the epoch
  that is best on test images.
"""
import logging

from clip import FrozenCLIP, encode_texts
from clip.templates import fill
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from trainers.parts.classes import Classes
from trainers.parts.pixel_prompt import UnitGradientPrompt
from trainers.parts.prompted_model import PromptedModel
from trainers.vp import PaddingTrainer, add_pixel_options

logger = logging.getLogger(__name__)


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.EVP = CfgNode()
    c.TEMPLATE = "this is a photo of a {}"    # the same for every dataset, as published; "" takes the dataset's own
    add_pixel_options(c)


@TRAINER_REGISTRY.register()
class EVP(PaddingTrainer):
    section, schedule_per, saved_as = "EVP", "epoch", {"pixel.program": "perturbation"}
    one_process_only = "its step has the length that the gradient of a whole batch gives it"

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        c = cfg.OPTIM
        if c.NAME != "sgd" or c.MOMENTUM or c.WEIGHT_DECAY:
            logger.warning("EVP takes plain steps (OPTIM.NAME sgd, MOMENTUM 0, WEIGHT_DECAY 0), got %s, %s and %s: "
                           "their length is then not the published one", c.NAME, c.MOMENTUM, c.WEIGHT_DECAY)

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        names = [name.lower().replace("-", " ") for name in classes.names]
        text = encode_texts(clip, fill(options.TEMPLATE or classes.template, names))
        return PromptedModel(clip, pixel=UnitGradientPrompt(clip.image_size, classes.image_size), text=text,
                             saved_as=cls.saved_as)

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        return {} if weights.keys() == {"perturbation"} else None
