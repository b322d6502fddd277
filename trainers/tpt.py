"""TPT: context words tuned at test time, for each image on its own, until views of it agree.

Source: Test-Time Prompt Tuning (Shu et al., NeurIPS 2022), tpt_classification.py and clip/custom_clip.py. The words and
the optimiser start again for every image; the plain view competes with the crops; the selected views are those of the
first step; AdamW decays the words too. Images of a batch are tuned side by side, each with words of its own: the same
as one by one. It starts from CLIP's own words or, with MODEL.INIT_WEIGHTS, from a run of CoOp, or of CoCoOp, where the
words that the network makes of the plain view are tuned.
"""
import torch
from torch import Tensor

from clip import FrozenCLIP
from dassl.config import CfgNode
from dassl.data.transforms.views import Views
from dassl.engine import TRAINER_REGISTRY
from trainers.adapting import AdaptingTrainer, check_views
from trainers.parts.classes import Classes
from trainers.parts.entropy import marginal_entropy, most_confident
from trainers.parts.meta_net import ConditionalPrompt
from trainers.parts.prompted_model import PromptedModel
from trainers.parts.text_prompt import TextPrompt


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.TPT = CfgNode()
    c.N_CTX = 4                         # context words where CTX_INIT is ""; those of a run that it starts from win
    c.CTX_INIT = "a photo of a"         # words to start from
    c.CLASS_TOKEN_POSITION = "end"      # or "middle", "front"; that of a run that it starts from wins
    c.VIEWS = 64                        # of each image, the plain one among them; more are steadier and cost time
    c.SELECT = 0.1                      # share of views, the most confident, whose mean prediction counts
    c.STEPS = 1                         # of AdamW for each image
    c.LR = 0.005                        # its rate; the first step moves every number by about as much
    c.AUGMIX = False                    # AugMix on the crops, as published for the fine-grained datasets
    c.PREC = "fp16"                     # fp16, amp, bf16 (autocast) or fp32; a CPU runs bf16 or fp32


@TRAINER_REGISTRY.register()
class TPT(AdaptingTrainer):
    section, learns, adapts = "TPT", "nothing", "image"
    saved_as, bounds = {"text.ctx": "ctx"}, {**AdaptingTrainer.bounds, "STEPS": (1, 4096)}

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        check_views(self.section, cfg.TRAINER[self.section])

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        c = options
        if c.get("CONDITIONAL", False):
            text = ConditionalPrompt(clip, classes.names, c.N_CTX, c.CTX_INIT)
            net = {f"text.{name}": name for name, _ in text.named_parameters() if name.startswith("meta_net")}
            return PromptedModel(clip, text=text, saved_as={**cls.saved_as, **net})
        text = TextPrompt(clip, classes.names, c.N_CTX, c.CTX_INIT, c.get("CLASS_TOKEN_POSITION", "end"),
                          c.get("CSC", False))
        return PromptedModel(clip, text=text, saved_as=cls.saved_as)

    @classmethod
    def starting_from(cls, options: CfgNode, weights: dict[str, Tensor], learned_with: CfgNode) -> CfgNode:
        if (ctx := weights.get("ctx")) is None:
            return options
        position = learned_with.get("CLASS_TOKEN_POSITION", options.get("CLASS_TOKEN_POSITION", "end"))
        return CfgNode({**options, "N_CTX": ctx.shape[-2], "CSC": ctx.dim() == 3, "CLASS_TOKEN_POSITION": position,
                        "CTX_INIT": options.CTX_INIT if ctx.shape[-2] == options.N_CTX else "",
                        "CONDITIONAL": any(name.startswith("meta_net.") for name in weights)})

    @classmethod
    def test_transform(cls, cfg: CfgNode) -> Views:
        options = cfg.TRAINER[cls.section]
        return Views(cfg, options.VIEWS, options.AUGMIX)

    @classmethod
    def predict(cls, model: PromptedModel, images: Tensor, options: CfgNode) -> Tensor:
        """Views (B, V, 3, H, W) to logits (B, C) of the first of each image."""
        text, clip = model.brick("text"), model.clip
        with torch.no_grad():
            features = model.image_features(images.flatten(0, 1)).unflatten(0, images.shape[:2])      # (B, V, D)
            start = text.contexts(features[:, 0])                                     # (B, n, W) or (B, C, n, W)
        with torch.enable_grad():
            words = start.detach().clone().requires_grad_()
            optimiser, selected = torch.optim.AdamW([words], options.LR), None
            for _ in range(options.STEPS):
                classes = text.features(clip, words)                                                  # (B, C, D)
                views = clip.scale * features @ classes.transpose(1, 2)                               # (B, V, C)
                selected = most_confident(views.detach(), options.SELECT) if selected is None else selected
                loss = marginal_entropy(views.take_along_dim(selected[..., None], dim=1)).sum()
                words.grad, = torch.autograd.grad(loss + cls.penalty(classes, options).sum(), words)
                optimiser.step()
        with torch.no_grad():
            return clip.scale * (text.features(clip, words) @ features[:, 0, :, None]).squeeze(-1)

    @classmethod
    def penalty(cls, classes: Tensor, options: CfgNode) -> Tensor:
        """(B,): what is minimised besides the entropy, from text features (B, C, D); nothing here."""
        return classes.new_zeros(len(classes))
