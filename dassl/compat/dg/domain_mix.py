"""DomainMix: mixup between images of different domains. Source: Sun et al., IJCAI 2022, as in Dassl 0.6.3."""
from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from dassl.engine.build import TRAINER_REGISTRY
from dassl.utils.errors import UserError

from .vanilla import Vanilla


@TRAINER_REGISTRY.register()
class DomainMix(Vanilla):
    """TRAINER.DOMAINMIX.TYPE must be "crossdomain" or "random"; each batch's share comes from Beta(ALPHA, BETA)."""

    one_process_only = "it mixes the images of a batch with each other"

    def __init__(self, cfg):
        super().__init__(cfg)
        c = cfg.TRAINER.DOMAINMIX
        self.mix_type, self.alpha, self.beta = c.TYPE, c.ALPHA, c.BETA

    def check_cfg(self, cfg) -> None:
        if cfg.TRAINER.DOMAINMIX.TYPE not in ("crossdomain", "random"):
            raise UserError('TRAINER.DOMAINMIX.TYPE must be "crossdomain" or "random", got '
                            f"{cfg.TRAINER.DOMAINMIX.TYPE!r}.")

    def forward_backward(self, batch: dict) -> dict:
        images, labels, other_labels, share = self.parse_batch_train(batch)
        logits = self.model(images)                                                     # (B, C)
        loss = (share * F.cross_entropy(logits, labels) + (1 - share) * F.cross_entropy(logits, other_labels)).sum()
        return self.learn(logits, labels, loss)

    def parse_batch_train(self, batch: dict):
        images, labels = super().parse_batch_train(batch)
        return self.domain_mix(images, labels, batch["domain"].to(self.device))

    def domain_mix(self, x: Tensor, target: Tensor, domain: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mixed images (B, 3, H, W), labels (B,) of both partners, and the first one's share (1,)."""
        share = torch.distributions.Beta(self.alpha, self.beta).sample((1,)) if self.alpha > 0 else torch.ones(1)
        share, partners = share.to(x.device), torch.randperm(len(x)).to(x.device)
        domains = domain.unique()
        if self.mix_type == "crossdomain" and len(domains) > 1:
            for one in domains:
                mine, others = (domain == one).nonzero()[:, 0], (domain != one).nonzero()[:, 0]
                drawn = torch.ones(len(others)).multinomial(len(mine), replacement=len(mine) > len(others))
                partners[mine] = others[drawn.to(x.device)]
        return share * x + (1 - share) * x[partners], target, target[partners], share
