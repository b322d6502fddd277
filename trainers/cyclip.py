"""CyCLIP: FLYP with cosines that are consistent within and between images and captions.

Source: CyCLIP (Goel et al., NeurIPS 2022), goel-shashank/CyCLIP 707e7c7, src/train.py. What is easily missed:
- The two losses are means over B x B times B, each with weight 0.25; as published it trains from scratch, and here it
  fine-tunes. TRAIN.CYCLIP_IN_MODAL and CYCLIP_CROSS_MODAL add them to any other method.
- The scale learns, and its logarithm stays in [0, 4.6052].
"""
import torch
from torch import nn

from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import UserError
from trainers.fine_tuning import add_options
from trainers.flyp import FLYP

MOST_LOG_SCALE = 4.6052


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.CYCLIP = CfgNode()
    c.IN_MODAL = 0.25                   # weight of the in-modal loss; larger keeps images as far apart as their texts
    c.CROSS_MODAL = 0.25                # of the cross-modal one; larger makes cosines symmetric between pairs
    add_options(c)


@TRAINER_REGISTRY.register()
class CyCLIP(FLYP):
    section = "CYCLIP"

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        c = cfg.TRAINER.CYCLIP
        if not min(c.IN_MODAL, c.CROSS_MODAL) >= 0:
            raise UserError("TRAINER.CYCLIP.IN_MODAL and CROSS_MODAL must be weights of at least 0, got "
                            f"{c.IN_MODAL} and {c.CROSS_MODAL}.")
        if cfg.TRAIN.CYCLIP_IN_MODAL or cfg.TRAIN.CYCLIP_CROSS_MODAL:
            raise UserError("CyCLIP has weights of its own, TRAINER.CYCLIP.IN_MODAL and CROSS_MODAL. Leave out those "
                            f"of TRAIN, got {cfg.TRAIN.CYCLIP_IN_MODAL} and {cfg.TRAIN.CYCLIP_CROSS_MODAL}.")

    @property
    def consistency_weights(self) -> tuple[float, float]:
        return self.options.IN_MODAL, self.options.CROSS_MODAL

    def register_prompts(self, learner: nn.Module) -> None:
        super().register_prompts(learner)
        self.optim.register_step_post_hook(self._keep_scale)

    @torch.no_grad()
    def _keep_scale(self, *_) -> None:
        self.model.clip.logit_scale.clamp_(0, MOST_LOG_SCALE)
