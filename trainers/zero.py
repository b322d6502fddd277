"""ZERO: the most confident views of an image vote, each for its first class; nothing is tuned.

Source: Frustratingly Easy Test-Time Adaptation of Vision-Language Models (Farina et al., NeurIPS 2024),
FarinaMatteo/zero c609f7c: views are ranked at CLIP's temperature, and their probabilities are summed at temperature
zero; of classes with equally many votes, that which the next most confident view prefers is taken (their code asks the
views in the order in which they were drawn).
"""
import torch
import torch.nn.functional as F
from torch import Tensor

from clip import FrozenCLIP
from dassl.config import CfgNode
from dassl.data.transforms.views import Views
from dassl.engine import TRAINER_REGISTRY
from trainers.adapting import AdaptingTrainer, check_views
from trainers.parts.classes import Classes
from trainers.parts.entropy import most_confident
from trainers.parts.prompted_model import PromptedModel
from trainers.parts.teacher import mean_text_features

_NO_VOTE = 1e-6                         # share of the votes of a class that has none, so that its logarithm is finite


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.ZERO = CfgNode()
    c.TEMPLATES = ()                    # sentences of a class, averaged; () is the dataset's own one
    c.VIEWS = 64                        # of each image, the plain one among them
    c.SELECT = 0.3                      # share of views, the most confident, that vote
    c.AUGMIX = False                    # AugMix on the crops
    c.PREC = "fp16"                     # fp16, amp, bf16 (autocast) or fp32; a CPU runs bf16 or fp32


@TRAINER_REGISTRY.register()
class ZERO(AdaptingTrainer):
    section, learns, adapts = "ZERO", "nothing", "image"

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        check_views(self.section, cfg.TRAINER.ZERO)

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        return PromptedModel(clip, text=mean_text_features(clip, classes, options.TEMPLATES))

    @classmethod
    def test_transform(cls, cfg: CfgNode) -> Views:
        return Views(cfg, cfg.TRAINER.ZERO.VIEWS, cfg.TRAINER.ZERO.AUGMIX)

    @classmethod
    def predict(cls, model: PromptedModel, images: Tensor, options: CfgNode) -> Tensor:
        """Views (B, V, 3, H, W) to logarithms of the shares of votes (B, C)."""
        return votes(model(images.flatten(0, 1)).logits.unflatten(0, images.shape[:2]), options.SELECT)


def votes(logits: Tensor, share: float) -> Tensor:
    """(B, V, C) -> (B, C), logarithms of the shares of votes; the winner of a tie is the largest by a hair."""
    ranked, V = most_confident(logits, 1.0), logits.shape[1]
    first = F.one_hot(logits.argmax(-1).take_along_dim(ranked, 1), logits.shape[-1]).double()         # (B, V, C)
    k = int(V * share)
    found = first[:, :k].sum(1)                                                                       # (B, C)
    tied = found == found.amax(1, keepdim=True)
    later = 0.5 ** torch.arange(1, V - k + 1, device=logits.device, dtype=torch.float64)    # an earlier view outweighs
    order = (first[:, k:] * later[:, None]).sum(1).masked_fill(~tied, -1)                   # all that follow; (B, C)
    winner = F.one_hot(order.argmax(1), logits.shape[-1])
    return ((found / k).clamp(min=_NO_VOTE).log() + 1e-4 * winner).float()
