"""TemporalPrompt: context words, and a small transformer over the features of a clip's frames, around frozen CLIP.

Source: Prompting Visual-Language Models for Efficient Video Understanding (Ju et al., ECCV 2022), written from the
paper: 16 context words before and after the class's name, and a temporal transformer of 2 layers. That the transformer
begins as the mean of frames is ours.
"""
from clip import FrozenCLIP
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from trainers._base import PromptTrainer
from trainers.parts.classes import Classes
from trainers.parts.prompted_model import PromptedModel
from trainers.parts.space_time import TemporalHead
from trainers.parts.text_prompt import TextPrompt


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.TEMPORALPROMPT = CfgNode()
    c.N_CTX = 32                        # context words, shared by all classes
    c.CTX_INIT = ""                     # words to start from; "" draws N_CTX random vectors
    c.CLASS_TOKEN_POSITION = "middle"   # of the class name: "middle", "end" or "front"
    c.LAYERS = 2                        # of the transformer over frames
    c.FRAMES = 64                       # the most frames that a clip may have
    c.PREC = "fp16"                     # fp16, amp, bf16 (autocast) or fp32; a CPU runs bf16 or fp32


@TRAINER_REGISTRY.register()
class TemporalPrompt(PromptTrainer):
    section = "TEMPORALPROMPT"
    bounds = {**PromptTrainer.bounds, "LAYERS": (1, 16), "FRAMES": (1, 4096)}

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        c = options
        text = TextPrompt(clip, classes.names, c.N_CTX, c.CTX_INIT, c.CLASS_TOKEN_POSITION)
        return PromptedModel(clip, text=text, head=TemporalHead(clip, c.LAYERS, c.FRAMES))

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        if "text.ctx" not in weights or "head.position" not in weights:
            return None
        layers = {name.split(".")[3] for name in weights if name.startswith("head.encoder.layers.")}
        return {"N_CTX": len(weights["text.ctx"]), "FRAMES": len(weights["head.position"]), "LAYERS": len(layers)}
