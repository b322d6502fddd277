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
from trainers.parts.text_prompt import TextPrompt


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.COOP = CfgNode()
    c.N_CTX = 16                        # context words; more fit better and transfer worse
    c.CSC = False                       # class-specific context; needs several shots, serves these classes only
    c.CTX_INIT = ""                     # words to start from, e.g. "a photo of a"; then N_CTX is their number of tokens
    c.PREC = "fp16"                     # fp16, amp, bf16 (autocast) or fp32; a CPU runs bf16 or fp32
    c.CLASS_TOKEN_POSITION = "end"      # "end", "middle" or "front"


def load_clip_to_cpu(cfg: CfgNode) -> torch.nn.Module:
    """CLIP in OpenAI's layout, half precision, on the CPU: CoOp's helper, which public trainers import from here."""
    path = openai._download(openai._MODELS[cfg.MODEL.BACKBONE.NAME])
    return openai.build_model(torch.load(path, map_location="cpu", weights_only=True))


@TRAINER_REGISTRY.register()
class CoOp(PromptTrainer):
    section, recordable = "COOP", True
    saved_as = {"text.ctx": "ctx"}

    def build_prompts(self, clip: FrozenCLIP) -> dict:
        c = self.options
        return {"text": TextPrompt(clip, self.classnames, c.N_CTX, c.CTX_INIT, c.CLASS_TOKEN_POSITION, c.CSC)}
