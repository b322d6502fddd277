"""MaPLe: learned words in the text tower, and visual tokens that are projected from them, in the first blocks of both.

Source: MaPLe: Multi-modal Prompt Learning (Khattak et al., CVPR 2023), trainers/maple.py; numbers in
configs/recipes/maple.yaml. As in the authors' code:
- With N_CTX 2 of "a photo of a", two words are learned and the sentence still is "[v1] [v2] of a <class>."
- The initial words count only up to N_CTX 4; more context words are random and leave no fixed words.
- The projections of the deeper blocks start as copies of one layer; visual tokens have no values of their own.
"""
from clip import FrozenCLIP
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from trainers._base import PromptTrainer
from trainers.parts.classes import Classes
from trainers.parts.coupling import CoupledPrompt, coupled_names
from trainers.parts.prompted_model import PromptedModel, all_names
from trainers.parts.text_prompt import TextPrompt, initial_words


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.MAPLE = CfgNode()
    c.N_CTX = 2                         # learned words, and as many visual tokens; more fit better and transfer worse
    c.CTX_INIT = "a photo of a"         # words whose first N_CTX are learned from there; "" or N_CTX > 4: random
    c.PROMPT_DEPTH = 9                  # blocks of both towers with tokens of their own; 1 is shallow
    c.PREC = "fp16"                     # fp16, amp, bf16 (autocast) or fp32; a CPU runs bf16 or fp32


@TRAINER_REGISTRY.register()
class MaPLe(PromptTrainer):
    section, needs_vit = "MAPLE", True

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        c = options
        text = TextPrompt(clip, classes.names, c.N_CTX, initial_words(c.CTX_INIT, c.N_CTX), n_learned=c.N_CTX)
        visual = CoupledPrompt(clip, text, c.PROMPT_DEPTH)
        return PromptedModel(clip, text=text, visual=visual, text_tuner=visual.deep_text,
                             saved_as=coupled_names(c.PROMPT_DEPTH))

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        depth = 1 + sum(name.startswith("compound_prompts_text.") for name in weights)
        names = all_names(coupled_names(depth))
        return {"N_CTX": len(weights["ctx"]), "PROMPT_DEPTH": depth} if weights.keys() == names else None
