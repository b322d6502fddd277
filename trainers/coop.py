"""CoOp: learned context words before, around or behind the class name.

Source: Learning to Prompt for Vision-Language Models (Zhou et al., IJCV 2022), trainers/coop.py; numbers and epochs in
configs/recipes/coop.yaml.
"""
import torch

from clip import FrozenCLIP
from clip import clip as openai
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from trainers._base import PromptTrainer
from trainers.parts.classes import Classes
from trainers.parts.prompted_model import PromptedModel
from trainers.parts.text_prompt import TextPrompt


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.COOP = CfgNode()
    c.N_CTX = 16                        # context words; more fit better and transfer worse
    c.CSC = False                       # class-specific context; needs several shots, serves these classes only
    c.CTX_INIT = ""                     # words to start from, e.g. "a photo of a"; then N_CTX is their number
    c.PREC = "fp16"                     # fp16, amp, bf16 (autocast) or fp32; a CPU runs bf16 or fp32
    c.CLASS_TOKEN_POSITION = "end"      # "end", "middle" or "front"


def load_clip_to_cpu(cfg: CfgNode) -> torch.nn.Module:
    """CLIP in OpenAI's layout, half precision, on the CPU: CoOp's helper, which public trainers import from here."""
    path = openai._download(openai._MODELS[cfg.MODEL.BACKBONE.NAME])
    return openai.build_model(torch.load(path, map_location="cpu", weights_only=True))


@TRAINER_REGISTRY.register()
class CoOp(PromptTrainer):
    section, saved_as = "COOP", {"text.ctx": "ctx"}

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        c = options
        text = TextPrompt(clip, classes.names, c.N_CTX, c.CTX_INIT, c.CLASS_TOKEN_POSITION, c.CSC)
        return PromptedModel(clip, text=text, saved_as=cls.saved_as)

    @classmethod
    def bound_to_classes(cls, options: CfgNode) -> str:
        return "a context for each class (TRAINER.COOP.CSC)" if options.CSC else ""

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        if weights.keys() != {"ctx"} or weights["ctx"].dim() not in (2, 3):
            return None
        return {"N_CTX": weights["ctx"].shape[-2], "CSC": weights["ctx"].dim() == 3}

    @classmethod
    def fits_prompts(cls, weights: dict, prompts: int) -> bool:
        return weights["ctx"].dim() == 2 or len(weights["ctx"]) == prompts
