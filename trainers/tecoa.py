"""TeCoA: attacked images are compared with the texts of all classes, and a visual prompt or the image tower learns.

Source: Understanding Zero-shot Adversarial Robustness for Large-Scale Models (Mao et al., ICLR 2023), authors' code
1243db6, visual_prompt.py, finetuning.py, attacks.py; numbers in configs/recipes/tecoa.yaml. What is easily missed:
- The frame is added to the normalised image; frame and tokens start from N(0, 1). Tokens stand behind the patches,
  before `ln_pre`, without a position.
- The attack is on pixels in [0, 1], with the prompts of the step; texts are those of the training classes, with names
  in lower case and no full stop, and learn nothing.
- The authors' attack leaves its gradients on what is learned, divided by the loss scale of 65536 (at full strength in
  float32); here it leaves none.
- CLIP's scale is clamped to 100 in their code, where it already is, and does not learn.
"""
import re

from torch import nn

from clip import FrozenCLIP, encode_texts
from clip.templates import fill
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import UserError
from trainers.attacked import AttackedTrainer, add_attack_options
from trainers.parts.classes import Classes
from trainers.parts.pixel_prompt import FramePrompt
from trainers.parts.prompted_model import PromptedModel
from trainers.parts.released import release
from trainers.parts.visual_prompt import VisualPrompt

LEARN = ("prompts", "tower")


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.TECOA = CfgNode()
    c.LEARN = "prompts"                 # or "tower": the whole image tower, which needs a far smaller OPTIM.LR
    c.WIDTH = 30                        # pixels of the frame on each side of the image; 0: none
    c.N_TOKENS = 100                    # visual tokens behind the patches; 0: none
    c.TEMPLATE = "This is a photo of a {}"    # the same for every dataset, as published; "" takes the dataset's own
    add_attack_options(c, eps=1.0, step=1.0, steps=2)
    c.PREC = "fp32"                     # fp32, or bf16 (autocast in training); weights themselves stay float32


@TRAINER_REGISTRY.register()
class TeCoA(AttackedTrainer):
    section, schedule_per, half_towers = "TECOA", "iteration", False

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        c = cfg.TRAINER.TECOA
        if c.LEARN not in LEARN or min(c.WIDTH, c.N_TOKENS) < 0 or c.LEARN == "prompts" and not c.WIDTH + c.N_TOKENS:
            raise UserError(f"TRAINER.TECOA needs LEARN {' or '.join(LEARN)}, and a WIDTH and N_TOKENS of at least 0, "
                            f"for prompts not both 0, got {c.LEARN!r}, {c.WIDTH} and {c.N_TOKENS}.")

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        c, frame, tokens = options, None, None
        names = [re.sub("[_/-]", " ", name.lower()) for name in classes.names]
        text = encode_texts(clip, fill(c.TEMPLATE or classes.template, names))
        if c.LEARN == "tower":
            return PromptedModel(clip, text=text, tower=release(clip, ".*", "vision"), takes_pixels=True)
        if c.WIDTH:
            frame = FramePrompt(clip.image_size, c.WIDTH)
            nn.init.normal_(frame.program)
        if c.N_TOKENS:
            tokens = VisualPrompt(clip, c.N_TOKENS, placement="end")
            nn.init.normal_(tokens.tokens)
        return PromptedModel(clip, text=text, pixel=frame, visual=tokens, takes_pixels=True)

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        if weights.keys() != {"pixel.program", "visual.tokens"} or len(weights["visual.tokens"]) != 1:
            return None                 # one of the two alone may be another method's
        return {"N_TOKENS": weights["visual.tokens"].shape[1]}
