"""ATPrompt: CoOp's context words behind attribute words, before each of which more words are learned.

Source: Advancing Textual Prompt Learning with Anchored Attributes (Li et al., ICCV 2025), authors' code 86980a1,
trainers/coop_atp.py and maple_atp.py; numbers in configs/recipes/atprompt.yaml and, on MaPLe, atprompt_maple.yaml.
What is easily missed:
- Attributes are fixed for each dataset, by a search that is done before; the recipe has them.
- The code takes every attribute for one token. "playfulness" of its own choice for pets is two: "energy" is lost there,
  and a literal X is put in its place. As published by default; WHOLE_WORDS keeps the words, as the paper means it.
- Learned words before attributes start smaller (0.01) than the context (0.02); initial words are ignored.
- On MaPLe, deeper blocks exchange the context alone: attributes and the words before them travel on.
- A third attribute's words are saved even where there is none; such files are read, and say nothing of the attributes.
"""
from clip import FrozenCLIP
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from trainers._base import PromptTrainer
from trainers.parts.attribute_prompt import AttributePrompt
from trainers.parts.classes import Classes
from trainers.parts.coupling import CoupledPrompt, coupled_names
from trainers.parts.prompted_model import PromptedModel, all_names


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.ATPROMPT = CfgNode()
    c.ATTRIBUTES = ["color", "shape"]   # words in front of the context; published for each dataset: see the recipe
    c.N_ATT = 2                         # learned words before each attribute
    c.N_CTX = 2                         # learned words before the class name
    c.PROMPT_DEPTH = 0                  # blocks with tokens of their own, in both towers, as MaPLe; 0 is on CoOp
    c.WHOLE_WORDS = False               # keep attributes of several tokens whole, which the published code does not
    c.PREC = "fp16"                     # fp16, amp, bf16 (autocast) or fp32; a CPU runs bf16 or fp32


@TRAINER_REGISTRY.register()
class ATPrompt(PromptTrainer):
    section = "ATPROMPT"

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        c = options
        text = AttributePrompt(clip, classes.names, c.ATTRIBUTES, c.N_ATT, c.N_CTX, c.WHOLE_WORDS)
        visual = CoupledPrompt(clip, text, c.PROMPT_DEPTH) if c.PROMPT_DEPTH else None
        names = coupled_names(c.PROMPT_DEPTH) if visual else {"text.ctx": "ctx"}
        names["text.soft"] = [f"ctx_att{i + 1}" for i in range(len(c.ATTRIBUTES))]
        return PromptedModel(clip, text=text, visual=visual, text_tuner=visual and visual.deep_text, saved_as=names)

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        own = {name for name in weights if not name.startswith("token_middle")}
        soft = sorted(name for name in own if name.startswith("ctx_att"))
        depth = sum(name.startswith("compound_prompts_text.") for name in own) + ("proj.weight" in own)
        if not soft or own - set(soft) != (all_names(coupled_names(depth)) if depth else {"ctx"}) \
                or not weights["ctx"].dim() == weights[soft[0]].dim() == 2:
            return None
        return {"N_CTX": len(weights["ctx"]), "N_ATT": len(weights[soft[0]]), "PROMPT_DEPTH": depth}
