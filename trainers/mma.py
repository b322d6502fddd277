"""MMA: a bottleneck parallel to each of the upper blocks of both towers, with a middle layer that the towers share.

Source: MMA: Multi-Modal Adapter (Yang et al., CVPR 2024), authors' code 547ee34, trainers/mmadapter.py; numbers in
configs/recipes/mma.yaml. As in the authors' code:
- The forward pass adds SCALE times the adapter, but what learns gets the gradient of scale 1; what lies below does not.
- It reads the first norm of a block's input and is added to the block's output; nothing starts at zero.
- Every dataset has the sentence "a photo of a {}."; blocks count from 1.
- Block 0 is the embeddings (off in all published settings), whose gradients are plain.
Their code keeps an evaluation's text features for good; here they follow what is learned.
"""
import re

from clip import FrozenCLIP
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from trainers._base import PromptTrainer
from trainers.parts.classes import Classes
from trainers.parts.parallel_adapter import ParallelAdapter
from trainers.parts.prompted_model import PromptedModel
from trainers.parts.sentences import Sentences

_SAVED = {"visual.down": "visual_adapter.{}.down.0", "visual.up": "visual_adapter.{}.up",
          "visual.shared": "shared_adapter.{}.0", "text_tuner.down": "text_adapter.{}.down.0",
          "text_tuner.up": "text_adapter.{}.up"}


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.MMA = CfgNode()
    c.FIRST = 5                         # adapted blocks of both towers from 1, 0 is the embeddings; low transfers worse
    c.LAST = 12
    c.DIM = 32                          # width of the bottleneck
    c.SCALE = 0.001                     # factor on the adapters; larger moves further from frozen CLIP
    c.TEMPLATE = "a photo of a {}."     # sentence of a class; "" takes the dataset's own
    c.PREC = "amp"                      # fp16, amp, bf16 (autocast) or fp32; a CPU runs bf16 or fp32


@TRAINER_REGISTRY.register()
class MMA(PromptTrainer):
    section, needs_vit = "MMA", True

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        c = options
        visual = ParallelAdapter(clip, c.FIRST, c.LAST, c.DIM, c.SCALE)
        beside = ParallelAdapter(clip, c.FIRST, c.LAST, c.DIM, c.SCALE, beside=visual)
        return PromptedModel(clip, text=Sentences(clip, classes.sentences(c.TEMPLATE), beside.embed), visual=visual,
                             text_tuner=beside, saved_as=_names(c.FIRST, c.LAST))

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        blocks = [int(found[1]) for name in weights if (found := re.fullmatch(r"shared_adapter\.(\d+)\.0\.bias", name))]
        if not blocks or weights.keys() != set(_names(min(blocks), max(blocks)).values()):
            return None                 # the factor is not in the file
        return {"FIRST": min(blocks), "LAST": max(blocks), "DIM": len(weights[f"shared_adapter.{blocks[0]}.0.bias"])}


def _names(first: int, last: int) -> dict[str, str]:
    return {f"{own}.{block - first}.{kind}": f"{saved.format(block)}.{kind}" for own, saved in _SAVED.items()
            for block in range(first, last + 1) for kind in ("weight", "bias")}
