"""UPT: context words and deep visual tokens that pass one small transformer together.

Source: Unified Vision and Language Prompt Learning (Zang et al., 2022, arXiv:2210.07225); its repository holds no code,
so this is what MVLPT (Shen et al., WACV 2024; 6fa518b, trainers/mvlpt.py) runs as UPT; numbers in
configs/recipes/upt.yaml. What is easily missed:
- Their transformer takes the words and tokens for a batch: each attends to itself alone, and nothing of one reaches
  another but through shared weights. JOINT True is the attention that the paper draws.
- The class name is in the middle of the context; visual tokens stand behind the class token, after `ln_pre`.
- The transformer has one head and no residual around it, and runs in float32.
"""
from clip import FrozenCLIP
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from trainers._base import PromptTrainer
from trainers.parts.classes import Classes
from trainers.parts.prompted_model import PromptedModel
from trainers.parts.unified_prompt import UnifiedPrompt, UnifiedText

_LAYERS = {"text_pre": "mvlpt_proj_ctx_coop_pre", "text_post": "mvlpt_proj_ctx_coop_post",
           "image_pre": "mvlpt_proj_ctx_vpt_pre", "image_post": "mvlpt_proj_ctx_vpt_post"}


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.UPT = CfgNode()
    c.N_CTX = 4                         # context words; more fit better and transfer worse
    c.CTX_INIT = ""                     # words to start from, e.g. "a photo of a"; then N_CTX is their number
    c.CLASS_TOKEN_POSITION = "middle"   # of the class name in the context: "middle", "end" or "front"
    c.N_CTX_VISION = 4                  # visual tokens in each prompted block
    c.PROMPT_DEPTH_VISION = 12          # blocks of the image tower with tokens of their own; 1 is shallow
    c.PROJECT_DIM = 128                 # width of the transformer between the prompts
    c.JOINT = False                     # words and tokens attend to each other; False: to themselves, as published
    c.PREC = "fp16"                     # fp16, amp, bf16 (autocast) or fp32; a CPU runs bf16 or fp32


@TRAINER_REGISTRY.register()
class UPT(PromptTrainer):
    section, needs_vit = "UPT", True

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        c = options
        text = UnifiedText(clip, classes.names, c.N_CTX, c.CTX_INIT, c.CLASS_TOKEN_POSITION)
        visual = UnifiedPrompt(clip, text, c.N_CTX_VISION, c.PROMPT_DEPTH_VISION, c.PROJECT_DIM, c.JOINT)
        return PromptedModel(clip, text=text, visual=visual, saved_as=_names(dict(visual.named_parameters())))

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        block = "mvlpt_proj.resblocks.0.ln_1.weight"
        if not {"ctx", "vpt_embeddings", block} <= weights.keys() or weights["ctx"].dim() != 2:
            return None
        deeper = len(weights["vpt_embeddings_deep"]) if "vpt_embeddings_deep" in weights else 0
        return {"N_CTX": len(weights["ctx"]), "N_CTX_VISION": weights["vpt_embeddings"].shape[1],
                "PROMPT_DEPTH_VISION": 1 + deeper, "PROJECT_DIM": len(weights[block])}


def _names(visual: dict) -> dict[str, str]:
    def saved(name: str) -> str:
        module, _, rest = name.partition(".")
        return {"first": "vpt_embeddings", "deeper": "vpt_embeddings_deep",
                "block": f"mvlpt_proj.resblocks.0.{rest}"}.get(module) or f"{_LAYERS[module]}.{rest}"

    return {"text.ctx": "ctx", **{f"visual.{name}": saved(name) for name in visual}}
