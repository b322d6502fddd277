"""DAPT: text and visual prompts that spread classes apart and pull images to their class's prototype.

Source: Distribution-Aware Prompt Tuning for Vision-Language Models (Cho et al., ICCV 2023), trainers/dapt.py; learning
rates and loss weights per dataset in configs/recipes/dapt.yaml.
"""
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from clip import FrozenCLIP
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import UserError, distributed
from trainers._base import PromptTrainer
from trainers.parts.classes import Classes
from trainers.parts.losses import inter_dispersion, intra_dispersion
from trainers.parts.prompted_model import Output, PromptedModel
from trainers.parts.prototypes import class_prototypes
from trainers.parts.text_prompt import TextPrompt
from trainers.parts.visual_prompt import VisualPrompt


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.DAPT = CfgNode()
    c.TXT_NUM_TOKENS = 16               # context words
    c.TXT_CTX_INIT = ""                 # words to start the context from; "" draws it from N(0, 0.02), as published
    c.VIS_NUM_TOKENS = 16               # visual tokens between class token and patches, after ln_pre
    c.VIS_DEPTH = 1                     # blocks with visual tokens of their own; 1 as published
    c.VIS_DROPOUT = 0.0                 # on the visual tokens, in training
    c.TXT_RBF_T = 2.0                   # bandwidth of the inter-dispersion; larger looks at nearer classes only
    c.TXT_BETA = 0.1                    # weight of the inter-dispersion (text); larger spreads classes more
    c.VIS_BETA = 10.0                   # weight of the intra-dispersion (image); larger pulls harder to the prototypes
    c.PROTOTYPE_VIEW = "train"          # transform of their images: "train" (random crops, published) or "test" (clean)
    c.PROTOTYPE_GEN = False             # the authors' separate prototype run; not needed here and must stay False
    c.PREC = "fp16"                     # fp16, amp, bf16 (autocast) or fp32; a CPU runs bf16 or fp32


@TRAINER_REGISTRY.register()
class DAPT(PromptTrainer):
    section, needs_vit = "DAPT", True
    saved_as = {"text.ctx": "txt_ctx", "visual.tokens": "vis_ctx"}

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        c = cfg.TRAINER.DAPT
        if c.PROTOTYPE_GEN:
            raise UserError("TRAINER.DAPT.PROTOTYPE_GEN True was the authors' separate run for prototypes. They are "
                            "built inside the training now: leave it False and run the training once.")
        if c.PROTOTYPE_VIEW not in ("train", "test"):
            raise UserError("TRAINER.DAPT.PROTOTYPE_VIEW must be \"train\" (the training transform, as published) or "
                            f"\"test\", got {c.PROTOTYPE_VIEW!r}.")

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        c = options
        if len(classes) < 2:
            raise UserError(f"DAPT needs at least 2 classes to spread apart, got {len(classes)}. "
                            "Check DATASET.SUBSAMPLE_CLASSES, or use CoOp.")
        return PromptedModel(clip, text=TextPrompt(clip, classes.names, c.TXT_NUM_TOKENS, c.TXT_CTX_INIT),
                             visual=VisualPrompt(clip, c.VIS_NUM_TOKENS, c.VIS_DEPTH, c.VIS_DROPOUT),
                             saved_as=cls.saved_as)

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        shapes = {name: value.shape for name, value in weights.items()}
        if shapes.keys() != {"txt_ctx", "vis_ctx"} or len(shapes["txt_ctx"]) != 2 or len(shapes["vis_ctx"]) != 3:
            return None
        return {"TXT_NUM_TOKENS": shapes["txt_ctx"][0], "VIS_NUM_TOKENS": shapes["vis_ctx"][1],
                "VIS_DEPTH": shapes["vis_ctx"][0]}

    @cached_property
    def prototypes(self) -> Tensor:
        """(C, D), from the un-prompted towers; built on first use, so evaluation needs none."""
        view = self.options.PROTOTYPE_VIEW
        return self.cached("prototypes", lambda: class_prototypes(
            self.model.clip, self.training_images(view, shared=True), len(self.classes), distributed.sum_), view=view)

    def use_stand_ins(self) -> None:
        clip = self.model.clip
        self.prototypes = F.normalize(torch.randn(len(self.classes), clip.embed_dim, device=self.device), dim=-1)

    def loss(self, out: Output, batch: dict) -> dict[str, Tensor]:
        c, label = self.options, batch["label"]
        return {**PromptTrainer.loss(self, out, batch),
                "intra": c.VIS_BETA * intra_dispersion(out.image_features, self.prototypes[label]),
                "inter": c.TXT_BETA * inter_dispersion(out.text_features, c.TXT_RBF_T)}
