"""PLOT: several learned contexts for all classes, matched with the tokens of an image by optimal transport.

Source: PLOT: Prompt Learning with Optimal Transport (Chen et al., ICLR 2023), plot-coop/trainers/plot.py (not PLOT++);
numbers in configs/recipes/plot.yaml. As in the authors' code:
- Contexts are random, shared by all classes, and end before the class name; no gradient passes the transport plan.
- The transport stops for a whole batch at once, in tests too: an image's logits move a little with its company, and
  alone it gets those of a batch of one (on 359 digits: up to 0.01 apart, no answer changed).
- ImageNet alone adds the logit of the pooled image (POOLED), with the mean of the prompts before their normalisation.
The authors run RN50, whose tokens are its attention pool at every position; a ViT gives its patches.
"""
from clip import FrozenCLIP
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from trainers._base import PromptTrainer
from trainers.parts.classes import Classes
from trainers.parts.prompted_model import PromptedModel
from trainers.parts.text_prompt import TextPrompt
from trainers.parts.transport_head import TransportHead


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.PLOT = CfgNode()
    c.N = 4                             # prompts of each class; more cost text passes
    c.N_CTX = 16                        # context words of each; more fit better and transfer worse
    c.POOLED = False                    # add the logit of the whole image, as published for ImageNet alone
    c.PREC = "fp16"                     # fp16, amp, bf16 (autocast) or fp32; a CPU runs bf16 or fp32


@TRAINER_REGISTRY.register()
class PLOT(PromptTrainer):
    section, saved_as = "PLOT", {"text.ctx": "ctx"}
    one_process_only = "its transport stops for the whole batch at once"
    bounds = {**PromptTrainer.bounds, "N": (1, 256)}

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        text = TextPrompt(clip, classes.names, options.N_CTX, n_prompts=options.N)
        return PromptedModel(clip, text=text, head=TransportHead(with_pooled=options.POOLED), want="tokens",
                             saved_as=cls.saved_as)

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        if weights.keys() != {"ctx"} or weights["ctx"].dim() != 3:
            return None                 # a context for each class, as CoOp may save, looks the same
        return {"N": len(weights["ctx"]), "N_CTX": weights["ctx"].shape[1]}

    @classmethod
    def fits_prompts(cls, weights: dict, prompts: int) -> bool:
        return prompts > len(weights["ctx"])            # each context with each class
