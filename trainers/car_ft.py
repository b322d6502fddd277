"""CARFT (CAR-FT): the image tower and a classifier are fine-tuned, and keep what zero-shot CLIP sees of the context.

Source: Context-Aware Robust Fine-Tuning (Mao et al., IJCV 2024, arXiv:2211.16175); no code of the authors' could be
read. What is easily missed:
- A context is a sentence without the class: the mean over classes of its features, normalised.
- KL goes from the frozen tower to the tuned one; both see the same augmented image.
"""
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from clip import FrozenCLIP
from clip.templates import IMAGENET_80, fill
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import UserError
from trainers.errors import as_user_error
from trainers.fine_tuning import ImageTowerTuner, add_options
from trainers.parts.prompted_model import Output
from trainers.parts.teacher import context_features


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.CARFT = CfgNode()
    c.BETA = 1.0                        # weight of the KL over contexts; larger keeps what CLIP sees of them
    c.CONTEXTS = ()                     # sentences with {} for the class, two or more; () are CLIP's 80 for ImageNet
    c.LEARN_HEAD = True                 # the classifier learns too; False: texts stay the classifier
    add_options(c)


@TRAINER_REGISTRY.register()
class CARFT(ImageTowerTuner):
    section, schedule_per = "CARFT", "iteration"

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        c = cfg.TRAINER.CARFT
        if not c.BETA >= 0 or len(c.CONTEXTS) == 1:
            raise UserError("TRAINER.CARFT needs a BETA of at least 0 and at least 2 CONTEXTS, or none for CLIP's own, "
                            f"got {c.BETA} and {len(c.CONTEXTS)}.")
        with as_user_error():
            for template in c.CONTEXTS:
                fill(template, [""])

    @cached_property
    def teacher(self) -> FrozenCLIP:
        return self.starting_model().clip

    @cached_property
    def contexts(self) -> Tensor:
        """(K, D), unit norm; only training asks for them."""
        sentences, names = list(self.options.CONTEXTS or IMAGENET_80), list(self.classes.names)
        return self.cached("contexts", lambda: context_features(self.model.clip, self.classes, sentences), images=(),
                           labels=(), seed=0, input="", names=names, templates=sentences)

    def use_stand_ins(self) -> None:
        self.contexts = F.normalize(torch.randn(80, self.model.clip.embed_dim, device=self.device), dim=-1)

    def loss(self, out: Output, batch: dict) -> dict[str, Tensor]:
        scale, contexts = self.model.clip.scale, self.contexts.t()                        # (), (D, K)
        with torch.no_grad(), self.mixed.autocast():
            frozen = self.teacher.encode_image(self.inputs(batch))                        # (B, D)
        theirs, ours = ((scale * features @ contexts).log_softmax(dim=1) for features in (frozen, out.image_features))
        divergence = F.kl_div(ours, theirs, reduction="batchmean", log_target=True)
        return {**super().loss(out, batch), "context": self.options.BETA * divergence}
