"""VQT: queries that read every block of the frozen image tower, and a linear classifier on what they read.

Source: Visual Query Tuning (Tu et al., CVPR 2023), authors' code 9bca87e, on CLIP's image tower. What is easily missed:
- Nothing attends to a query, queries not even to each other: the frozen tokens stay what they are.
- What a query reads is taken as it leaves the block; the last norm is for the class token alone.
- A block's queries have unit norm together, the class token by itself.
- Where it was published, rate and decay are sought on 800 of the 1,000 images, and all of them train the final run.
- With KEEP below 1, a group lasso ranks the features by their weights over all classes in a first half of the epochs;
  the best train a new classifier in the second, where the queries stay. They run three trainings: queries, lasso, new
  classifier; here the first two are one.
- In training they also drop 0.1 of the embedded patches, which CLIP's tower does not.
"""
from torch import Tensor

from clip import FrozenCLIP
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import UserError
from trainers._base import PromptTrainer
from trainers.parts.classes import Classes
from trainers.parts.prompted_model import Output, PromptedModel
from trainers.parts.query_reader import QueryHead, QueryReader
from trainers.two_stages import TwoStages


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.VQT = CfgNode()
    c.N = 1                             # queries of each block; more read more and make the classifier larger
    c.DROPOUT = 0.1                     # share of a query's entries that are left out, in training
    c.READ = "all"                      # of a block's queries: "all", their "mean" or a learned weighted "sum"
    c.NORMALISE = True                  # the class token, and what is read of each block, to unit norm
    c.KEEP = 1.0                        # share of the features that the classifier keeps; published 0.7, 1 selects none
    c.LASSO = 0.0001                    # weight of the group lasso while features are ranked; more makes fewer count
    c.PREC = "fp16"                     # fp16, amp, bf16 (autocast) or fp32; a CPU runs bf16 or fp32


@TRAINER_REGISTRY.register()
class VQT(TwoStages, PromptTrainer):
    section, needs_vit = "VQT", True
    saved_as = {"visual.tokens": "query_prompt_embeddings", "head.weight": "last_layer.weight",
                "head.bias": "last_layer.bias"}
    bounds = {**PromptTrainer.bounds, "N": (1, 512)}

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        c = cfg.TRAINER.VQT
        if not 0 < c.KEEP <= 1 or c.LASSO < 0:
            raise UserError("TRAINER.VQT needs KEEP above 0 and at most 1, and LASSO of at least 0, got "
                            f"{c.KEEP} and {c.LASSO}.")
        if c.KEEP < 1 and cfg.OPTIM.MAX_EPOCH < 2:
            raise UserError(f"TRAINER.VQT.KEEP {c.KEEP} ranks the features in one half of the epochs and learns in the "
                            f"other: OPTIM.MAX_EPOCH must be at least 2, got {cfg.OPTIM.MAX_EPOCH}.")

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        queries = QueryReader(clip, options.N, options.DROPOUT)
        head = QueryHead(queries, len(classes), options.get("KEEP", 1.0), options.get("READ", "all"),
                         options.get("NORMALISE", True))
        summed = {} if head.combine is None else {"head.combine": "combine_params"}
        return PromptedModel(clip, visual=queries, head=head, saved_as={**cls.saved_as, **summed})

    @classmethod
    def bound_to_classes(cls, options: CfgNode) -> str:
        return "a linear classifier"

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        if weights.keys() - {"head.kept", "combine_params"} != set(cls.saved_as.values()):
            return None
        kept, (depth, n, width) = weights.get("head.kept"), weights["query_prompt_embeddings"].shape
        whole = weights["last_layer.weight"].shape[1] == width * (1 + depth * n)
        return {"N": n, "READ": "sum" if "combine_params" in weights else "all" if whole else "mean",
                "KEEP": 1.0 if kept is None else kept.float().mean().item()}

    def first_share(self, options: CfgNode) -> float:
        return 0.5 if options.KEEP < 1 else 0

    def enter_stage(self, first: bool) -> None:
        self.model.head.ranking = first
        self.model.brick("visual").requires_grad_(first or self.options.KEEP == 1)

    def before_second_stage(self) -> None:
        if self.options.KEEP < 1:
            self.model.head.select()

    def loss(self, out: Output, batch: dict) -> dict[str, Tensor]:
        terms = super().loss(out, batch)
        return {**terms, "lasso": self.options.LASSO * self.model.head.lasso()} if self.model.head.ranking else terms
