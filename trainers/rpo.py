"""RPO: tokens in both towers that read everything and change nothing, compared pair by pair.

Source: Read-only Prompt Optimization (Lee et al., ICCV 2023), authors' code d770db6, trainers/rpo.py; numbers in
configs/recipes/rpo.yaml. As in the authors' code:
- No token attends to a prompt, prompts not even to themselves; they have no position, and start from the class token
  and the end-of-text, each with noise of length 0.1.
- A logit is the mean cosine of the pairs (k, k), not of all K * K.
- Class names keep their underscores, which CLIP reads as tokens (UNDERSCORES).
The frozen tokens are computed without gradients; theirs are the same numbers with the whole sequence recorded.
"""
from clip import FrozenCLIP
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from trainers._base import PromptTrainer
from trainers.parts.classes import Classes
from trainers.parts.prompted_model import PromptedModel
from trainers.parts.read_only import PairedHead, ReadOnlyPrompt
from trainers.parts.sentences import Sentences


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.RPO = CfgNode()
    c.K = 24                            # read-only tokens of each tower; more fit better
    c.TEMPLATE = "a photo of a {}."     # sentence of a class; "" takes the dataset's own
    c.UNDERSCORES = True                # class names keep them, as published; False writes spaces
    c.PREC = "fp16"                     # fp16, amp, bf16 (autocast) or fp32; a CPU runs bf16 or fp32


@TRAINER_REGISTRY.register()
class RPO(PromptTrainer):
    section, needs_vit = "RPO", True
    saved_as = {"text_tuner.tokens": "text_prompt", "visual.tokens": "img_prompt"}

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        text = Sentences(clip, classes.sentences(options.TEMPLATE, underscores=options.UNDERSCORES))
        text_tuner = ReadOnlyPrompt(clip, options.K, "text")
        return PromptedModel(clip, text=text, text_tuner=text_tuner, visual=ReadOnlyPrompt(clip, options.K, "image"),
                             want="readers", text_want="readers", head=PairedHead(), saved_as=cls.saved_as)

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        return {"K": len(weights["img_prompt"])} if weights.keys() == set(cls.saved_as.values()) else None
