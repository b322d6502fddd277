"""CTPT: TPT whose classes are also pushed apart, so that confidence means what it says.

Source: C-TPT (Yoon et al., ICLR 2024), hee-suk-yoon/C-TPT 085e6c2 tpt_classification.py: TPT's loss minus LAMBDA times
the mean distance of the text features from their mean, which is not normalised. The authors' scripts take 50 for the
fine-grained datasets and 20 for ImageNet's variants.
"""
from torch import Tensor

from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from trainers.parts.losses import dispersion
from trainers.tpt import TPT
from trainers.tpt import extend_cfg as of_tpt


def extend_cfg(cfg: CfgNode) -> None:
    if "TPT" not in cfg.TRAINER:
        of_tpt(cfg)
    c = cfg.TRAINER.CTPT = cfg.TRAINER.TPT.clone()      # TPT's keys with TPT's defaults, and:
    c.LAMBDA = 50.0                     # how hard classes are pushed apart; more lowers the confidence


@TRAINER_REGISTRY.register()
class CTPT(TPT):
    section = "CTPT"

    @classmethod
    def penalty(cls, classes: Tensor, options: CfgNode) -> Tensor:
        return -options.LAMBDA * dispersion(classes)
