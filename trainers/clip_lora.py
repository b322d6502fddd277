"""CLIPLoRA: low-rank updates of queries, keys and values in both towers, against fixed sentences.

Source: Low-Rank Few-Shot Adaptation of Vision-Language Models (Zanella and Ben Ayed, CVPR workshops 2024), authors'
code 358f0d7, lora.py and loralib/. What is easily missed:
- The factor is alpha / sqrt(r), and logits are 100 times the cosines, whatever CLIP's own scale is.
- Every dataset has the sentence "a photo of a {}."; the rate follows a cosine per iteration, down to 1e-6.
- Dropout acts on what enters an update, with masks of their own for q, k and v.
- Without dropout and in float32, their code loses an update's gradient to what lies below it; here it counts.
Difference: training ends with the whole epoch that is nearest to the authors' number of iterations, where they stop
within one.
"""
import math
import re

from clip import FrozenCLIP, encode_texts
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import UserError
from trainers._base import PromptTrainer
from trainers.iterations import train_for_iterations
from trainers.parts.classes import Classes
from trainers.parts.heads import CosineHead
from trainers.parts.low_rank import LowRank
from trainers.parts.prompted_model import PromptedModel
from trainers.parts.sentences import Sentences

_SAVED = re.compile(r"(visual\.)?transformer\.resblocks\.\d+\.attn\.(?:(q|k|v)_)?proj\.w_lora_[AB]")


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.CLIPLORA = CfgNode()
    c.ENCODER = "both"                  # towers that learn: "both", "vision" or "text"
    c.POSITION = "all"                  # their blocks: all, half-up, half-bottom, up, mid, bottom, top1, top2 or top3
    c.PROJECTIONS = "qkv"               # products of the attention, some of q, k, v and o (the output projection)
    c.RANK = 2                          # of an update; more fit better
    c.ALPHA = 1.0                       # updates count alpha / sqrt(rank)
    c.DROPOUT = 0.25                    # share of its input that an update does not see, in training
    c.TEMPLATE = "a photo of a {}."     # sentence of a class; "" takes the dataset's own
    c.ITERATIONS = 500                  # training steps per shot, which decide the epochs; 0: OPTIM.MAX_EPOCH does
    c.PREC = "fp16"                     # fp16, amp, bf16 (autocast) or fp32; a CPU runs bf16 or fp32


@TRAINER_REGISTRY.register()
class CLIPLoRA(PromptTrainer):
    section, schedule_per = "CLIPLORA", "iteration"
    bounds = {**PromptTrainer.bounds, "ITERATIONS": (0, math.inf)}

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        if (encoder := cfg.TRAINER.CLIPLORA.ENCODER) not in ("both", "vision", "text"):
            raise UserError(f"TRAINER.CLIPLORA.ENCODER must be both, vision or text, got {encoder!r}.")

    def build_data_loader(self) -> None:
        super().build_data_loader()
        train_for_iterations(self, self.options.ITERATIONS)

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        c, visual, textual = options, None, None
        shared = c.RANK, c.ALPHA, c.PROJECTIONS, c.POSITION, c.DROPOUT
        if c.ENCODER in ("both", "vision"):
            clip.require_tokens("A low-rank update of the image tower")
            visual = LowRank(clip.vision_width, clip.depth, *shared)
        if c.ENCODER in ("both", "text"):
            textual = LowRank(clip.text_width, clip.text_depth, *shared)
        sentences = classes.sentences(c.TEMPLATE)
        saved_as = {f"{brick}.{row}": names for brick, tuner, tower in (("visual", visual, "visual."),
                                                                      ("text_tuner", textual, "")) if tuner
                    for row, names in tuner.saved_names(tower).items()}
        return PromptedModel(clip, text=Sentences(clip, sentences) if textual else encode_texts(clip, sentences),
                             visual=visual, text_tuner=textual, head=CosineHead(100.0), saved_as=saved_as)

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        if not weights or not all(found := [_SAVED.fullmatch(name) for name in weights]):
            return None                 # the position and the factor are not in the file
        towers = {match[1] for match in found}
        return {"ENCODER": "both" if len(towers) > 1 else "text" if None in towers else "vision",
                "PROJECTIONS": "".join(p for p in "qkvo" if p in {match[2] or "o" for match in found}),
                "RANK": min(next(iter(weights.values())).shape)}
