"""TaskBias: visual tokens, the same for all images, that steer an image's features to one of several tasks.

Source: Task Bias in Vision-Language Models (Menon et al., 2022, arXiv:2212.04412); no code is published, so this is
written from the paper's idea, and settings are ours. An image has an answer to each task, such as its shape and its
colour; CLIP's features lie near whichever it prefers. The tokens are learned with the wanted task's answer against the
answers to all tasks. Task clarification, in results.json before and after: the share of test images whose features are
nearer to their own answer to the wanted task than to their own answers to the others.
"""
import torch
from torch import Tensor

from clip import FrozenCLIP, encode_texts
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from trainers._base import PromptTrainer
from trainers.parts.classes import Classes
from trainers.parts.prompted_model import PromptedModel
from trainers.parts.visual_prompt import VisualPrompt


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.TASKBIAS = CfgNode()
    c.N_CTX_VISION = 8                  # visual tokens; more steer further and cost time
    c.PROMPT_DEPTH_VISION = 1           # blocks with tokens of their own: 1 is shallow, the tower's depth is deep
    c.PLACEMENT = "after_cls"           # "after_cls" (after ln_pre) or "end" (behind the patches, before ln_pre)
    c.PREC = "fp32"                     # fp16, amp, bf16 (autocast) or fp32; a CPU runs bf16 or fp32


@TRAINER_REGISTRY.register()
class TaskBias(PromptTrainer):
    """Attributes: clear, (2,): test images whose own answer to the wanted task was nearest, before and after; met."""

    section, needs_vit, saved_as = "TASKBIAS", True, {}

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        c = options
        visual = VisualPrompt(clip, c.N_CTX_VISION, c.PROMPT_DEPTH_VISION, placement=c.PLACEMENT)
        return PromptedModel(clip, text=encode_texts(clip, classes.sentences()), visual=visual)

    def test(self, *args, **kwargs) -> float:
        self.clear, self.met = torch.zeros(2), 0
        return super().test(*args, **kwargs)

    def answers(self, loader, split: str):
        for batch, output, label in super().answers(loader, split):
            if hasattr(self.dm.dataset, "asked") and not self.is_training:
                self.compare(batch, output)
            yield batch, output, label

    def compare(self, batch: dict, after: Tensor) -> None:
        """Count the images whose answer to the wanted task is nearest of their own answers."""
        own = torch.tensor([self.dm.dataset.answers[path] for path in batch["impath"]], device=after.device)   # (B, T)
        with torch.no_grad():
            before = self.model.clip.encode_image(batch["img"].to(self.device)) @ self.model.fixed_text.T
        for i, scores in enumerate((before, after)):
            self.clear[i] += (scores.gather(1, own).argmax(dim=1) == self.dm.dataset.asked).sum().item()
        self.met += len(own)

    def run_record_fields(self) -> dict:
        found, met = super().run_record_fields(), getattr(self, "met", 0)
        if met:
            before, after = (100.0 * self.clear / met).tolist()
            found |= {"task": self.dm.dataset.tasks[self.dm.dataset.asked],
                      "task_clarification": {"before": before, "after": after}}
        return found
