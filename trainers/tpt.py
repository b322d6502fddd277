"""TPT: context words tuned at test time, for each image on its own, until views of it agree.

Source: Test-Time Prompt Tuning (Shu et al., NeurIPS 2022), tpt_classification.py and clip/custom_clip.py. The words and
the optimiser start again for every image; the plain view competes with the crops; the selected views are those of the
first step; AdamW decays the words too. Images of a batch are tuned side by side, each with words of its own: the same
as one by one.
"""
import torch
from torch import Tensor
from torch.func import functional_call

from clip import FrozenCLIP
from dassl.config import CfgNode
from dassl.data.transforms.views import Views
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import UserError
from trainers._base import PromptTrainer
from trainers.parts.classes import Classes
from trainers.parts.entropy import marginal_entropy, most_confident
from trainers.parts.prompted_model import PromptedModel
from trainers.parts.text_prompt import TextPrompt


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.TPT = CfgNode()
    c.N_CTX = 4                         # context words where CTX_INIT is ""
    c.CTX_INIT = "a photo of a"         # words to start from; MODEL.INIT_WEIGHTS starts from CoOp's instead
    c.VIEWS = 64                        # of each image, the plain one among them; more are steadier and cost time
    c.SELECT = 0.1                      # share of views, the most confident, whose mean prediction counts
    c.STEPS = 1                         # of AdamW for each image
    c.LR = 0.005                        # its rate; the first step moves every number by about as much
    c.AUGMIX = False                    # AugMix on the crops, as published for the fine-grained datasets
    c.PREC = "fp16"                     # fp16, amp, bf16 (autocast) or fp32; a CPU runs bf16 or fp32


@TRAINER_REGISTRY.register()
class TPT(PromptTrainer):
    section, learns, adapts = "TPT", "nothing", "image"
    saved_as = {"text.ctx": "ctx"}

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        c = cfg.TRAINER.TPT
        if not 0 < c.SELECT <= 1 or int(c.VIEWS * c.SELECT) < 1:
            raise UserError(f"TRAINER.TPT.SELECT must be a share in (0, 1] that selects at least 1 of VIEWS {c.VIEWS}, "
                            f"got {c.SELECT}. Set more views or a larger share.")
        if c.STEPS < 1:
            raise UserError(f"TRAINER.TPT.STEPS must be at least 1, got {c.STEPS}.")

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        text = TextPrompt(clip, classes.names, options.N_CTX, options.CTX_INIT)
        return PromptedModel(clip, text=text, saved_as=cls.saved_as)

    @classmethod
    def test_transform(cls, cfg: CfgNode) -> Views:
        return Views(cfg, cfg.TRAINER.TPT.VIEWS, cfg.TRAINER.TPT.AUGMIX)

    @classmethod
    def predict(cls, model: PromptedModel, images: Tensor, options: CfgNode) -> Tensor:
        """Views (B, V, 3, H, W) to logits (B, C) of the first of each image."""
        text, clip = model.brick("text"), model.clip
        with torch.no_grad():
            features = model.image_features(images.flatten(0, 1)).unflatten(0, images.shape[:2])      # (B, V, D)

        def logits(words: Tensor) -> Tensor:
            classes = clip.encode_text(functional_call(text, {"ctx": words}, ()))                     # (B, C, D)
            return clip.scale * features @ classes.transpose(1, 2)                                    # (B, V, C)

        with torch.enable_grad():
            words = text.ctx.detach().repeat(len(images), 1, 1).requires_grad_()                      # (B, n, W)
            optimiser, selected = torch.optim.AdamW([words], options.LR), None
            for _ in range(options.STEPS):
                views = logits(words)
                selected = most_confident(views.detach(), options.SELECT) if selected is None else selected
                loss = marginal_entropy(views.take_along_dim(selected[..., None], dim=1)).sum()
                words.grad, = torch.autograd.grad(loss, words)
                optimiser.step()
        with torch.no_grad():
            return logits(words)[:, 0]
