"""VQT: queries that read every block of the frozen image tower, and a linear classifier on what they read.

Source: Visual Query Tuning (Tu et al., CVPR 2023), authors' code 9bca87e, on CLIP's image tower. What is easily missed:
- Nothing attends to a query, queries not even to each other: the frozen tokens stay what they are.
- What a query reads is taken as it leaves the block; the last norm is for the class token alone.
- A block's queries have unit norm together, the class token by itself.
- Where it was published, rate and decay are sought on 800 of the 1,000 images, and all of them train the final run.
Their selection of features by group lasso is left out.
"""
from clip import FrozenCLIP
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from trainers._base import PromptTrainer
from trainers.parts.classes import Classes
from trainers.parts.prompted_model import PromptedModel
from trainers.parts.query_reader import QueryHead, QueryReader


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.VQT = CfgNode()
    c.N = 1                             # queries of each block; more read more and make the classifier larger
    c.DROPOUT = 0.1                     # share of a query's entries that are left out, in training
    c.PREC = "fp16"                     # fp16, amp, bf16 (autocast) or fp32; a CPU runs bf16 or fp32


@TRAINER_REGISTRY.register()
class VQT(PromptTrainer):
    section, needs_vit = "VQT", True
    saved_as = {"visual.tokens": "query_prompt_embeddings", "head.weight": "last_layer.weight",
                "head.bias": "last_layer.bias"}

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        queries = QueryReader(clip, options.N, options.DROPOUT)
        return PromptedModel(clip, visual=queries, head=QueryHead(queries, len(classes)), saved_as=cls.saved_as)

    @classmethod
    def bound_to_classes(cls, options: CfgNode) -> str:
        return "a linear classifier"

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        if weights.keys() != set(cls.saved_as.values()):
            return None
        return {"N": weights["query_prompt_embeddings"].shape[1]}
