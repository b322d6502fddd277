"""ATPrompt: CoOp's context words behind attribute words, before each of which more words are learned.

Source: Advancing Textual Prompt Learning with Anchored Attributes (Li et al., ICCV 2025), authors' code 86980a1,
trainers/coop_atp.py, on CoOp; numbers in configs/recipes/atprompt.yaml. What is easily missed:
- Attributes are fixed for each dataset, by a search that is done before; the recipe has them.
- The code takes every attribute for one token. "playfulness" of its own choice for pets is two: "energy" is lost there,
  and a literal X stands in its place. As published by default; WHOLE_WORDS keeps the words, as the paper means it.
- Learned words before attributes start smaller (0.01) than the context (0.02); initial words are ignored.
- A third attribute's words are saved even where there is none; such files are read, and say nothing of the attributes.
"""
from clip import FrozenCLIP
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from trainers._base import PromptTrainer
from trainers.parts.attribute_prompt import AttributePrompt
from trainers.parts.classes import Classes
from trainers.parts.prompted_model import PromptedModel


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.ATPROMPT = CfgNode()
    c.ATTRIBUTES = ["color", "shape"]   # words in front of the context; published for each dataset: see the recipe
    c.N_ATT = 2                         # learned words before each attribute
    c.N_CTX = 2                         # learned words before the class name
    c.WHOLE_WORDS = False               # keep attributes of several tokens whole, which the published code does not
    c.PREC = "fp16"                     # fp16, amp, bf16 (autocast) or fp32; a CPU runs bf16 or fp32


@TRAINER_REGISTRY.register()
class ATPrompt(PromptTrainer):
    section = "ATPROMPT"

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        c = options
        text = AttributePrompt(clip, classes.names, c.ATTRIBUTES, c.N_ATT, c.N_CTX, c.WHOLE_WORDS)
        names = [f"ctx_att{i + 1}" for i in range(len(c.ATTRIBUTES))]
        return PromptedModel(clip, text=text, saved_as={"text.ctx": "ctx", "text.soft": names})

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        soft = [name for name in weights if name.startswith("ctx_att")]
        if not soft or weights.keys() - soft - {f"token_middle{i}" for i in (1, 2, 3)} != {"ctx"} \
                or not weights["ctx"].dim() == weights[soft[0]].dim() == 2:
            return None
        return {"N_CTX": len(weights["ctx"]), "N_ATT": len(weights[soft[0]])}
