"""ProDA: a distribution over the classes' text features, from many learned contexts with the name in several places.

Source: Prompt Distribution Learning (Lu et al., CVPR 2022), sections 3.2 to 3.4. Its authors publish no code; details
are those of ml-stat-Sustech/CLIP_Calibration 5b68fb1, trainers/classification/proda.py; numbers in
configs/recipes/proda.yaml. What is easily missed:
- A step sees N_PROMPT / PROMPT_BS of the prompts, in an order that is redrawn when all were seen.
- The classifier is the mean of unit-norm features, itself not of unit norm; the covariance is divided by n + 1.
- The second-order term, an upper bound of the expected loss, counts in training alone.
- The diversity counts all prompts in every step, as sentences without a class name.
That code keeps the underscores of class names and cuts such names where they stand before or inside a context. Here
they stay whole; UNDERSCORES does as that code, whose files it serves.
"""
import torch
import torch.nn.functional as F
from torch import Tensor

from clip import FrozenCLIP
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import UserError, distributed
from trainers._base import PromptTrainer
from trainers.parts.classes import Classes
from trainers.parts.heads import MeanHead
from trainers.parts.losses import score_variance, similarity_of_pairs
from trainers.parts.prompt_set import PromptSet
from trainers.parts.prompted_model import Output, PromptedModel


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.PRODA = CfgNode()
    c.N_PROMPT = 32                     # prompts of each class, a multiple of 4; more cost text passes, in tests once
    c.N_CTX = 16                        # context words of each; more fit better and transfer worse
    c.PROMPT_BS = 4                     # prompts that a step sees, which share N_PROMPT evenly
    c.ALPHA = 0.1                       # weight of the diversity; larger keeps prompts further apart
    c.UNDERSCORES = False               # class names keep them and are cut, as in that code; False writes spaces
    c.PREC = "fp16"                     # fp16, amp, bf16 (autocast) or fp32; a CPU runs bf16 or fp32


@TRAINER_REGISTRY.register()
class ProDA(PromptTrainer):
    """Attributes: unseen, prompts that this pass over all of them has not drawn yet, in their order."""

    section, saved_as, unseen = "PRODA", {"text.ctx": "ctx"}, ()
    bounds = {**PromptTrainer.bounds, "N_PROMPT": (1, 1024)}

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        c = cfg.TRAINER[self.section]
        if not 1 <= c.PROMPT_BS <= c.N_PROMPT or c.N_PROMPT % c.PROMPT_BS:
            raise UserError(f"TRAINER.{self.section}.PROMPT_BS must share N_PROMPT {c.N_PROMPT} evenly, got "
                            f"{c.PROMPT_BS}.")

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        text = PromptSet(clip, classes.names, options.N_CTX, options.N_PROMPT, options.get("UNDERSCORES", False))
        return PromptedModel(clip, text=text, head=MeanHead(), saved_as=cls.saved_as)

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        if weights.keys() - {"nc_token_prefix", "nc_token_suffix"} != {"ctx"} or weights["ctx"].dim() != 3:
            return None                 # several shared contexts, or one for each class, look the same
        return {"N_PROMPT": len(weights["ctx"]), "N_CTX": weights["ctx"].shape[1]}

    @classmethod
    def fits_prompts(cls, weights: dict, prompts: int) -> bool:
        return "nc_token_prefix" in weights

    def output(self, batch: dict) -> Output:
        if not self.unseen:
            self.unseen = distributed.from_first(torch.randperm(self.options.N_PROMPT).tolist())
        drawn, self.unseen = self.unseen[:self.options.PROMPT_BS], self.unseen[self.options.PROMPT_BS:]
        with self.model.brick("text").only(drawn):
            return super().output(batch)

    def loss(self, out: Output, batch: dict) -> dict[str, Tensor]:
        label, clip = batch["label"], self.model.clip
        ce = F.cross_entropy(out.logits, label)
        variance = score_variance(out.image_features, out.text_features, label)                   # (B, C)
        bound = F.cross_entropy(out.logits + clip.scale ** 2 / 2 * variance, label)
        sentences = clip.encode_text(self.model.brick("text").without_classes())                  # (P, D)
        return {"ce": ce, "bound": bound - ce, "diversity": self.options.ALPHA * similarity_of_pairs(sentences)}

    def use_stand_ins(self) -> None:
        """Steps with the same share of each place of the name."""
        N, k = self.options.N_PROMPT, self.options.PROMPT_BS
        self.unseen = [first + i * (N // k) for first in range(N // k) for i in range(k)]

    def training_state(self) -> dict:
        return {**super().training_state(), "unseen": list(self.unseen)}

    def load_training_state(self, state: dict) -> None:
        super().load_training_state(state)
        self.unseen = state.get("unseen", ())
