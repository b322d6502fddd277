"""ProGrad: CoOp's context words, which never step against what zero-shot CLIP says of the images.

Source: Prompt-aligned Gradient for Prompt Tuning (Zhu et al., ICCV 2023), authors' code 1b76203, trainers/prograd.py
and prograd_backward_and_update; numbers in configs/recipes/prograd.yaml. What is easily missed:
- What they call KL is the cross-entropy with the teacher's probabilities, entropy included: the same gradient.
- The angle is taken for each parameter, before weight decay and momentum; only cross-entropy is the logged loss.
- The context starts from the teacher's words, right-aligned: zeros come first, and of words that are more tokens than
  words (a comma is one) the last tokens stay fixed between context and name.
- A teacher's gradient that vanishes changes nothing, as theirs; one that is NaN ends the step, where theirs is ignored.
The image tower is not prompted, so the teacher's images are the student's.
"""
import math
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from clip import FrozenCLIP
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from dassl.engine.hooks.parallel import average_gradients
from dassl.utils import UserError
from trainers._base import PromptTrainer
from trainers.method import POSITIVE
from trainers.parts.classes import Classes
from trainers.parts.gradient_surgery import without_conflict
from trainers.parts.prompted_model import Output, PromptedModel
from trainers.parts.teacher import mean_text_features
from trainers.parts.text_prompt import TextPrompt


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.PROGRAD = CfgNode()
    c.N_CTX = 16                        # context words; more fit better and transfer worse
    c.CTX_INIT = True                   # start from the words before the name in the teacher's sentence; else random
    c.TEMPLATE = ""                     # the teacher's sentence, with {} for the name; "" takes the dataset's own
    c.LAMBDA = 1.0                      # share of a conflict that is taken out of the gradient; 0 is CoOp
    c.T = 1.0                           # temperature of both answers; larger smooths what the teacher says
    c.PREC = "fp16"                     # fp16, amp, bf16 (autocast) or fp32; a CPU runs bf16 or fp32


@TRAINER_REGISTRY.register()
class ProGrad(PromptTrainer):
    one_task_only = "a teacher's scores of all classes are its target"
    section, saved_as = "PROGRAD", {"text.ctx": "ctx"}
    bounds = {**PromptTrainer.bounds, "T": (POSITIVE, math.inf)}

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        n, template = options.N_CTX, options.TEMPLATE or classes.template
        words = template.split("{}")[0].split() if options.CTX_INIT else []
        if options.CTX_INIT and not 1 <= len(words) <= n:
            raise UserError(f"TRAINER.PROGRAD.CTX_INIT starts from the words before {{}} in {template!r}: there must "
                            f"be 1 to {n} (N_CTX), got {len(words)}. Set another TEMPLATE, or CTX_INIT False.")
        first = n - len(words)                                  # zeros before the words
        init = " ".join(["X"] * first + words) if words else ""
        text = TextPrompt(clip, classes.names, n, init, n_learned=n)
        if words:
            with torch.no_grad():
                text.ctx[:first].zero_()
        return PromptedModel(clip, text=text, saved_as=cls.saved_as)

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        if weights.keys() != {"ctx"} or weights["ctx"].dim() != 2:
            return None
        return {"N_CTX": len(weights["ctx"])}

    @cached_property
    def teacher(self) -> Tensor:
        """(C, D), unit norm; only training asks for it."""
        return mean_text_features(self.model.clip, self.classes, (self.options.TEMPLATE,))

    def loss(self, out: Output, batch: dict) -> dict[str, Tensor]:
        T, clip = self.options.T, self.model.clip
        teacher = self.model.head(out.image_features.detach(), self.teacher, clip)              # (B, C)
        return {**PromptTrainer.loss(self, out, batch),
                "teacher": T ** 2 * F.cross_entropy(out.logits / T, (teacher / T).softmax(dim=-1))}

    def gradients(self, batch: dict) -> tuple[Output, dict[str, Tensor], Tensor]:
        with self.mixed.autocast():
            out = self.output_for_loss(batch)
        terms = self.loss(out, batch)
        guides = self.gradients_of(terms["teacher"], retain_graph=True)
        for parameter, own in self.gradients_of(terms["ce"]).items():
            parameter.grad = without_conflict(own, guides[parameter], self.options.LAMBDA)
        return out.detach(), {name: term.detach() for name, term in terms.items()}, terms["ce"].detach()

    def gradients_of(self, term: Tensor, retain_graph: bool = False) -> dict[torch.nn.Parameter, Tensor]:
        """Of one term, over the whole batch of all processes."""
        self.model_zero_grad()
        self.mixed.scaler.scaled(term).backward(retain_graph=retain_graph)
        average_gradients(self)
        return {p: p.grad for p in self.model.prompt_learner.parameters() if p.grad is not None}
