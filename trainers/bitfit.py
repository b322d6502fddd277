"""BitFit: the biases of the towers' blocks and norms learn, against fixed sentences; all weights stay frozen.

Source: BitFit (Ben Zaken et al., ACL 2022), on CLIP as 2SFS (Farina et al., CVPR 2025; 64ac143) compares it. What is
easily missed: the biases of the attention's joint projection are one parameter of a block, those of keys have no effect
on a soft-max, and logits keep CLIP's own scale. Rates are ours: 2SFS gives one for all of its kinds of tuning.
"""
from clip import FrozenCLIP, encode_texts
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import UserError
from trainers._base import PromptTrainer
from trainers.parts.classes import Classes
from trainers.parts.prompted_model import PromptedModel
from trainers.parts.released import BIASES, TOWERS, release
from trainers.parts.sentences import Sentences


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.BITFIT = CfgNode()
    c.ENCODER = "both"                  # towers that learn: "both", "vision" or "text"
    c.TEMPLATE = ""                     # sentence of a class; "" takes the dataset's own
    c.PREC = "amp"                      # fp16, amp, bf16 (autocast) or fp32; a CPU runs bf16 or fp32


@TRAINER_REGISTRY.register()
class BitFit(PromptTrainer):
    section, half_towers = "BITFIT", False

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        if (encoder := cfg.TRAINER.BITFIT.ENCODER) not in TOWERS:
            raise UserError(f"TRAINER.BITFIT.ENCODER must be both, vision or text, got {encoder!r}.")

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        tower, sentences = release(clip, BIASES, options.ENCODER), classes.sentences(options.TEMPLATE)
        text = encode_texts(clip, sentences) if options.ENCODER == "vision" else Sentences(clip, sentences)
        return PromptedModel(clip, text=text, tower=tower)

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        if not weights or not all(name.startswith("tower.") and name.endswith("bias") for name in weights):
            return None
        vision = {name.startswith("tower.visual") for name in weights}
        return {"ENCODER": "both" if len(vision) > 1 else "vision" if True in vision else "text"}

