"""FixMatch: confident predictions on weakly augmented images teach strongly augmented ones.

Source: Sohn et al., NeurIPS 2020, eqs. 3 and 4; as in Dassl 0.6.3 labelled images also serve as unlabelled ones.
"""
from __future__ import annotations

import torch
from torch.nn import functional as F

from dassl.data import DataManager
from dassl.data.transforms import build_transform
from dassl.engine.build import TRAINER_REGISTRY
from dassl.engine.trainer import TrainerXU
from dassl.metrics import compute_accuracy
from dassl.utils.errors import UserError


@TRAINER_REGISTRY.register()
class FixMatch(TrainerXU):
    """Each image comes twice: as INPUT.TRANSFORMS makes it, and as TRAINER.FIXMATCH.STRONG_TRANSFORMS do."""

    def __init__(self, cfg):
        super().__init__(cfg)
        self.weight_u, self.conf_thre = cfg.TRAINER.FIXMATCH.WEIGHT_U, cfg.TRAINER.FIXMATCH.CONF_THRE

    def check_cfg(self, cfg) -> None:
        if not cfg.TRAINER.FIXMATCH.STRONG_TRANSFORMS:
            raise UserError("FixMatch compares a weakly and a strongly augmented image; set "
                            'TRAINER.FIXMATCH.STRONG_TRANSFORMS, e.g. ("random_flip", "randaugment_fixmatch", '
                            '"normalize").')

    def build_data_loader(self) -> None:
        strong = build_transform(self.cfg, is_train=True, choices=self.cfg.TRAINER.FIXMATCH.STRONG_TRANSFORMS)
        self.use_data(DataManager(self.cfg, custom_tfm_train=[build_transform(self.cfg, is_train=True), strong]))

    def forward_backward(self, batch_x: dict, batch_u: dict) -> dict:
        x, x_strong, labels, u, u_strong = self.parse_batch_train(batch_x, batch_u)
        with torch.no_grad():
            confidence, pseudo_labels = self.model(torch.cat([x, u])).softmax(1).max(1)  # (B + B',)
        logits_x, logits_u = self.model(x), self.model(torch.cat([x_strong, u_strong]))
        loss_x = F.cross_entropy(logits_x, labels)
        of_each = F.cross_entropy(logits_u, pseudo_labels, reduction="none")
        loss_u = (of_each * (confidence >= self.conf_thre)).mean()
        self.model_backward_and_update(loss_x + self.weight_u * loss_u)
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        return {"loss_x": loss_x.item(), "acc_x": compute_accuracy(logits_x, labels)[0].item(),
                "loss_u": loss_u.item(), "acc_u": compute_accuracy(logits_u, pseudo_labels)[0].item()}

    def parse_batch_train(self, batch_x: dict, batch_u: dict):
        return self.on_device(batch_x["img"], batch_x["img2"], batch_x["label"], batch_u["img"], batch_u["img2"])
