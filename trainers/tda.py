"""TDA: test images that were answered before vote on those that come, for and against classes; no gradients.

Source: Efficient Test-Time Adaptation of Vision-Language Models (Karmanov et al., CVPR 2024), kdiAAA/TDA e697fb0
tda_runner.py, utils.py. What is easily missed: an image enters the cache before it is answered; its entropy is in nats
over log2 of the classes, 0.69 at most; several views' mean feature is not normalised again; cosines count 100 times,
whatever CLIP's own scale is. ALPHA and BETA are the authors' per dataset; the order of the stream is drawn from SEED.
"""
import torch.nn.functional as F
from torch import Tensor

from clip import FrozenCLIP
from dassl.config import CfgNode
from dassl.data.transforms import build_transform
from dassl.data.transforms.views import Views
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import UserError
from trainers.adapting import AdaptingTrainer, check_views
from trainers.parts.classes import Classes
from trainers.parts.entropy import entropy, marginal_entropy, most_confident
from trainers.parts.heads import CosineHead
from trainers.parts.prompted_model import PromptedModel
from trainers.parts.stream_cache import StreamCache, Votes
from trainers.parts.teacher import mean_text_features


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.TDA = CfgNode()
    c.TEMPLATES = ()                    # sentences of a class, averaged; () is the dataset's own one
    c.ALPHA = 2.0                       # weight of the votes for a class
    c.BETA = 5.0                        # how fast they fall with the distance
    c.SIZE = 3                          # images kept of each predicted class
    c.ALPHA_AGAINST = 0.117             # the same of the votes against classes, from images that were unsure
    c.BETA_AGAINST = 1.0
    c.SIZE_AGAINST = 2
    c.VIEWS = 1                         # of each image; 64 as published for ImageNet's variants
    c.SELECT = 0.1                      # share of several views, the most confident, that counts
    c.AUGMIX = False                    # AugMix on the crops, as published with 64 views
    c.PREC = "fp16"                     # fp16, amp, bf16 (autocast) or fp32; a CPU runs bf16 or fp32


@TRAINER_REGISTRY.register()
class TDA(AdaptingTrainer):
    section, learns, adapts = "TDA", "nothing", "stream"
    bounds = {**AdaptingTrainer.bounds, "VIEWS": (1, 1024)}

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        c = cfg.TRAINER.TDA
        check_views(self.section, c)
        if min(c.SIZE, c.SIZE_AGAINST) < 1 or min(c.ALPHA, c.BETA, c.ALPHA_AGAINST, c.BETA_AGAINST) < 0:
            raise UserError("TRAINER.TDA needs SIZE and SIZE_AGAINST of at least 1, and ALPHA, BETA, ALPHA_AGAINST and "
                            f"BETA_AGAINST of at least 0, got {c.SIZE}, {c.SIZE_AGAINST}, {c.ALPHA}, {c.BETA}, "
                            f"{c.ALPHA_AGAINST}, {c.BETA_AGAINST}.")

    def build_data_loader(self) -> None:
        super().build_data_loader()
        size, images = self.options.SIZE * self.num_classes, len(self.dm.dataset.test or ())
        if 0 < images < size:
            raise UserError(f"TRAINER.TDA.SIZE {self.options.SIZE} makes room for {size} images of {self.num_classes} "
                            f"classes, and the stream has {images}. Set a smaller one, or test more images.")

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        c = options
        stream = StreamCache(Votes(c.SIZE, c.ALPHA, c.BETA), Votes(c.SIZE_AGAINST, c.ALPHA_AGAINST, c.BETA_AGAINST))
        return PromptedModel(clip, text=mean_text_features(clip, classes, c.TEMPLATES), head=CosineHead(100.0),
                             stream=stream)

    @classmethod
    def test_transform(cls, cfg: CfgNode):
        c = cfg.TRAINER.TDA
        return Views(cfg, c.VIEWS, c.AUGMIX) if c.VIEWS > 1 else build_transform(cfg, is_train=False)

    @classmethod
    def predict(cls, model: PromptedModel, images: Tensor, options: CfgNode) -> Tensor:
        """(B, 3, H, W) or views (B, V, 3, H, W) to logits (B, C)."""
        out = model(images.flatten(0, -4))
        views = images.shape[:-3] if images.dim() == 5 else (len(images), 1)
        features, logits = (x.unflatten(0, views) for x in (out.image_features, out.logits))          # (B, V, ...)
        chosen = most_confident(logits, options.SELECT if views[1] > 1 else 1.0)[..., None]
        features, logits = features.take_along_dim(chosen, 1).mean(1), logits.take_along_dim(chosen, 1)
        mean = logits.mean(1)                                                                         # (B, C)
        doubts = marginal_entropy(logits) if views[1] > 1 else entropy(logits[:, 0])                  # (B,)
        probabilities = F.softmax(logits, -1).mean(1)                                                 # (B, C)
        return mean + model.stream.logits(features, mean.argmax(1), doubts, probabilities)
