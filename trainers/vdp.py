"""VDP: pixels added to the images of a stream, so that a frozen CLIP reads a world that keeps changing.

Source: Decorate the Newcomers: Visual Domain Prompt for Continual Test Time Adaptation (Gan et al., AAAI 2023,
2212.04145), whose code is not published: the two prompts, the teacher and the homeostasis are the paper's, the rates
are ours. The student sees a random crop with its pixels and learns the teacher's answer to the plain image; the
teacher answers each batch before it is learned from.
"""
import torch
from torch import Tensor

from clip import FrozenCLIP, InputError, encode_texts
from dassl.config import CfgNode
from dassl.data.transforms.views import Views
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import UserError
from trainers.adapting import AdaptingTrainer
from trainers.parts.classes import Classes
from trainers.parts.domain_pixels import DomainPixels
from trainers.parts.prompted_model import PromptedModel


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.VDP = CfgNode()
    c.RATE = 0.03                       # of the pixels' gradient descent, for a mean over a batch; images are in [0, 1]
    c.DECAY = 0.99                      # of the teacher and of the homeostasis; more remember longer
    c.HOMEOSTASIS = 0.1                 # how hard the pixels for all domains are held where a domain pulls at them
    c.PREC = "amp"                      # fp32; amp, bf16: under autocast (a CPU: bf16)


@TRAINER_REGISTRY.register()
class VDP(AdaptingTrainer):
    section, learns, adapts, normalised, half_towers = "VDP", "nothing", "stream", False, False

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        c = cfg.TRAINER.VDP
        if c.RATE <= 0 or not 0 <= c.DECAY < 1 or c.HOMEOSTASIS < 0:
            raise UserError("TRAINER.VDP needs a RATE above 0, a DECAY in [0, 1) and a HOMEOSTASIS of at least 0, got "
                            f"{c.RATE}, {c.DECAY} and {c.HOMEOSTASIS}.")

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        c = options
        stream = DomainPixels(clip.image_size, c.RATE, c.DECAY, c.HOMEOSTASIS, clip.logit_scale.device)
        return PromptedModel(clip, text=encode_texts(clip, classes.sentences()), stream=stream)

    @classmethod
    def test_transform(cls, cfg: CfgNode) -> Views:
        return Views(cfg, 2)

    @classmethod
    def predict(cls, model: PromptedModel, images: Tensor, options: CfgNode) -> Tensor:
        """The plain image and a crop of it (B, 2, 3, H, W) in [0, 1] to logits (B, C); the whole batch is learned."""
        pixels, (plain, crop) = model.stream, images.unbind(1)
        logits = model((plain + pixels.teacher.sum(0) - model.mean) / model.std).logits
        if not logits.isfinite().all():
            raise InputError("Scores of this batch are not finite, so nothing is learned from it. Compute in fp32, or "
                             "learn at a smaller rate.")
        with torch.enable_grad():
            added = (pixels.own + pixels.shared).requires_grad_()
            student = model((crop + added - model.mean) / model.std).logits
            loss = -(logits.softmax(-1) * student.log_softmax(-1)).sum(-1).mean()
            gradient, = torch.autograd.grad(loss, added)
        pixels.step(gradient)
        return logits
