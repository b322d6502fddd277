"""CrossGrad: a label and a domain classifier, each trained on images that fool the other.

Source: Shankar et al., ICLR 2018, algorithm 1; gradients are clipped at 0.1 per pixel as in Dassl 0.6.3.
"""
from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dassl.engine.build import TRAINER_REGISTRY
from dassl.engine.trainer import SimpleNet, TrainerX


@TRAINER_REGISTRY.register()
class CrossGrad(TrainerX):
    """Registers the models "F" (labels, the one that is tested) and "D" (source domains)."""

    one_process_only = "it clips gradients by pixels, which shrink with the size of the batch"

    def __init__(self, cfg):
        super().__init__(cfg)
        c = cfg.TRAINER.CROSSGRAD
        self.eps_f, self.eps_d, self.alpha_f, self.alpha_d = c.EPS_F, c.EPS_D, c.ALPHA_F, c.ALPHA_D

    def build_model(self) -> None:
        self.F = SimpleNet(self.cfg, self.cfg.MODEL, self.num_classes).to(self.device)
        self.optim_F, self.sched_F = self.register_learner("F", self.F)
        self.D = SimpleNet(self.cfg, self.cfg.MODEL, self.num_source_domains).to(self.device)
        self.optim_D, self.sched_D = self.register_learner("D", self.D)
        self.model = self.F

    def forward_backward(self, batch: dict) -> dict:
        images, labels, domains = self.parse_batch_train(batch)
        for_f = images + self.eps_f * _clipped_gradient(self.D, images, domains)        # another domain, same label
        for_d = images + self.eps_d * _clipped_gradient(self.F, images, labels)
        losses = {}
        for name, own, other, target in (("F", self.alpha_f, for_f, labels), ("D", self.alpha_d, for_d, domains)):
            model = self._models[name]
            loss = (1 - own) * F.cross_entropy(model(images), target) + own * F.cross_entropy(model(other), target)
            self.model_backward_and_update(loss, name)
            losses[f"loss_{name.lower()}"] = loss.item()
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        return losses

    def model_inference(self, input: Tensor) -> Tensor:
        return self.F(input)


def _clipped_gradient(model: nn.Module, images: Tensor, target: Tensor) -> Tensor:
    """Of the model's loss by the pixels, within [-0.1, 0.1]."""
    with torch.enable_grad():
        images = images.detach().requires_grad_()
        gradient, = torch.autograd.grad(F.cross_entropy(model(images), target), images)
    return gradient.clamp(-0.1, 0.1)
