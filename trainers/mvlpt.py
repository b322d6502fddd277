"""MVLPT: one prompt for several tasks, of the text tower, of the image tower or of both, as a start for other tasks.

Source: Multitask Vision-Language Prompt Tuning (Shen et al., WACV 2024), sIncerass/MVLPT 6fa518b, trainers/mvlpt.py;
numbers in configs/recipes/mvlpt.yaml. What is easily missed:
- Its scripts compare an image with the classes of all tasks (LOSS union). Its option for a loss of each task's own
  classes multiplies the other logits by 0, which keeps them in the softmax (LOSS zeroed). Here they leave it (own).
- A test compares an image with the classes of its own task, whatever the loss.
- Visual prompts alone are compared with "a photo of a {}." on every dataset.
- A second stage starts from MODEL.INIT_WEIGHTS, the folder of the first one's run.
"""
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from clip import FrozenCLIP, encode_texts
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import UserError
from trainers._base import PromptTrainer
from trainers.parts.classes import Classes
from trainers.parts.prompted_model import Output, PromptedModel
from trainers.parts.tasks import of_own_task, only_own_task
from trainers.parts.text_prompt import TextPrompt
from trainers.parts.visual_prompt import VisualPrompt
from trainers.upt import UPT

PROMPTS, LOSSES = ("text", "visual", "upt"), ("own", "union", "zeroed")


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.MVLPT = CfgNode()
    c.PROMPT = "upt"                    # "text" (MCoOp), "visual" (MVPT) or "upt" (MUPT), both through a transformer
    c.LOSS = "own"                      # classes an image is compared with in training: "own" task's; "union": all
                                        # tasks', as published; "zeroed": all, the other tasks' logits 0
    c.N_CTX = 4                         # context words; the authors take 16 for text prompts alone
    c.CTX_INIT = ""                     # words to start from, e.g. "a photo of a"; then N_CTX is their number. For
                                        # "visual": fixed words before the name; "" is "a photo of a"
    c.CLASS_TOKEN_POSITION = "middle"   # of the class name in the context: "middle", "end" or "front"
    c.N_CTX_VISION = 4                  # visual tokens in each prompted block; the authors take 16 for them alone
    c.PROMPT_DEPTH_VISION = 12          # blocks of the image tower with tokens of their own; 1 is shallow
    c.PROJECT_DIM = 128                 # width of the transformer between the prompts, for "upt"
    c.JOINT = False                     # for "upt": words and tokens attend to each other, which published ones do not
    c.PREC = "fp16"                     # fp16, amp, bf16 (autocast) or fp32; a CPU runs bf16 or fp32


@TRAINER_REGISTRY.register()
class MVLPT(PromptTrainer):
    """Attributes: tasks, (B,) int64, of the batch that is answered."""

    section, needs_vit = "MVLPT", True
    tasks: Tensor | None = None

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        for key, known in (("PROMPT", PROMPTS), ("LOSS", LOSSES)):
            if (value := cfg.TRAINER.MVLPT[key]) not in known:
                raise UserError(f"TRAINER.MVLPT.{key} must be {', '.join(known[:-1])} or {known[-1]}, got {value!r}.")

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        c = options
        if c.PROMPT == "upt":
            return UPT.build(clip, classes, options)
        if c.PROMPT == "text":
            text = TextPrompt(clip, classes.names, c.N_CTX, c.CTX_INIT, c.CLASS_TOKEN_POSITION)
            return PromptedModel(clip, text=text, saved_as={"text.ctx": "ctx"})
        sentences = classes.sentences((c.CTX_INIT.replace("_", " ") or "a photo of a") + " {}.")
        deeper = {"vpt_embeddings_deep": c.PROMPT_DEPTH_VISION - 1} if c.PROMPT_DEPTH_VISION > 1 else {}
        return PromptedModel(clip, text=encode_texts(clip, sentences),
                             visual=VisualPrompt(clip, c.N_CTX_VISION, c.PROMPT_DEPTH_VISION),
                             saved_as={"visual.tokens": {"vpt_embeddings": 1, **deeper}})

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        if (both := UPT.options_of(weights)) is not None:
            return {"PROMPT": "upt", **both}
        if weights.keys() - {"vpt_embeddings_deep"} != {"vpt_embeddings"}:
            return None                 # a context alone is CoOp's
        return {"PROMPT": "visual", "N_CTX_VISION": weights["vpt_embeddings"].shape[1],
                "PROMPT_DEPTH_VISION": sum(map(len, weights.values()))}

    @property
    def task_of_class(self) -> Tensor | None:
        """(C,) of a dataset of several tasks; None for a single one."""
        tasks = getattr(self.dm.dataset, "task_of_class", None)
        return None if tasks is None else torch.tensor(tasks, device=self.device)

    def loss(self, out: Output, batch: dict) -> dict[str, Tensor]:
        logits, of_class = out.logits, self.task_of_class
        if of_class is not None and self.options.LOSS != "union":
            tasks = batch["domain"].to(self.device)
            own = self.options.LOSS == "own"
            logits = only_own_task(logits, of_class, tasks) if own else logits * of_own_task(of_class, tasks)
        return {"ce": F.cross_entropy(logits, batch["label"])}

    def answers(self, loader, split: str) -> Iterator[tuple[dict, Tensor, Tensor]]:
        """Among the classes of each image's own task."""
        of_class = self.task_of_class
        for batch, logits, labels in super().answers(loader, split):
            tasks = batch["domain"].to(logits.device)
            yield batch, logits if of_class is None else only_own_task(logits, of_class, tasks), labels
