"""PLOT++: several prompts of both towers, matched by optimal transport, in two stages.

Source: PLOT (Chen et al., ICLR 2023), authors' code 728539f, plot-pp/trainers/plotpp.py; numbers in
configs/recipes/plotpp.yaml. As in the authors' code:
- The transport is between M images, each with a visual prompt of its own, and N texts; patches play no part in it.
- First the visual prompts learn alone, with the logit of the pooled features added; then both, without it, from a fresh
  optimiser and schedule. Theirs are two runs, and the second ones of all seeds start from the first of seed 1; here
  every seed has its own. VISION_SHARE 0 learns both from the start, 1 the visual prompts alone.
- Contexts have as many words as the first phrase. A shorter phrase (ImageNet's third) continues with the end-of-text;
  in their code it also cuts the first token of the class name, here the name stays whole.
"""
from clip import FrozenCLIP
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import UserError
from trainers._base import PromptTrainer
from trainers.parts.classes import Classes
from trainers.parts.phrases import PhrasePrompt
from trainers.parts.prompted_model import PromptedModel
from trainers.parts.text_prompt import TextPrompt
from trainers.parts.transport_head import ViewTransportHead
from trainers.parts.visual_prompt import PromptSets
from trainers.two_stages import TwoStages


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.PLOTPP = CfgNode()
    c.N = 4                             # prompts of each class; more cost text passes
    c.M = 4                             # visual prompts; an image passes its tower so many times
    c.N_CTX_V = 2                       # tokens of each visual prompt
    c.CTX_INIT = ("a photo of a", "this is a photo", "this is picture of", "one picture of a")  # N phrases; (): random
    c.N_CTX = 0                         # words of each context; 0: as many as the first phrase has
    c.VISION_SHARE = 0.5                # of the epochs, in which visual prompts learn alone; 0: never, 1: always
    c.PREC = "fp16"                     # fp16, amp, bf16 (autocast) or fp32; a CPU runs bf16 or fp32


@TRAINER_REGISTRY.register()
class PLOTPP(TwoStages, PromptTrainer):
    section, needs_vit = "PLOTPP", True
    saved_as = {"text.ctx": "ctx", "visual.tokens": "ctx_vision"}
    one_process_only = "its transport stops for the whole batch at once"
    bounds = {**PromptTrainer.bounds, "N": (1, 256), "M": (1, 256)}

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        if not 0 <= (share := cfg.TRAINER[self.section].VISION_SHARE) <= 1:
            raise UserError(f"TRAINER.{self.section}.VISION_SHARE must be a share of the epochs, from 0 to 1, got "
                            f"{share}.")

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        c, phrases = options, tuple(options.CTX_INIT)
        if phrases and len(phrases) < c.N:
            raise UserError(f"TRAINER.PLOTPP.CTX_INIT has {len(phrases)} phrases for N {c.N} prompts. Give as many.")
        text = (PhrasePrompt(clip, classes.names, phrases[:c.N], c.N_CTX) if phrases and c.N > 0
                else TextPrompt(clip, classes.names, c.N_CTX, n_prompts=c.N))
        return PromptedModel(clip, text=text, visual=PromptSets(clip, c.M, c.N_CTX_V), saved_as=cls.saved_as,
                             head=ViewTransportHead(with_pooled=c.VISION_SHARE == 1))

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        if weights.keys() != set(cls.saved_as.values()) or {w.dim() for w in weights.values()} != {3}:
            return None                 # the phrases are not in the file
        (N, n_ctx, _), (M, n_vision, _) = weights["ctx"].shape, weights["ctx_vision"].shape
        return {"N": N, "N_CTX": n_ctx, "M": M, "N_CTX_V": n_vision}

    def first_share(self, options: CfgNode) -> float:
        return options.VISION_SHARE

    def enter_stage(self, first: bool) -> None:
        self.model.head.with_pooled = first
        self.model.brick("text").ctx.requires_grad_(not first)
