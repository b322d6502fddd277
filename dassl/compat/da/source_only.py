"""Cross-entropy on labelled source images alone: the baseline of domain adaptation."""
from __future__ import annotations

from torch.nn import functional as F

from dassl.engine.build import TRAINER_REGISTRY
from dassl.engine.trainer import TrainerXU
from dassl.metrics import compute_accuracy


@TRAINER_REGISTRY.register()
class SourceOnly(TrainerXU):
    """The unlabelled batch is drawn and not looked at, so that an epoch is as long as other methods'."""

    def forward_backward(self, batch_x: dict, batch_u: dict) -> dict:
        images, labels = self.parse_batch_train(batch_x, batch_u)
        logits = self.model(images)                                                     # (B, C)
        loss = F.cross_entropy(logits, labels)
        self.model_backward_and_update(loss)
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        return {"loss": loss.item(), "acc": compute_accuracy(logits, labels)[0].item()}

    def parse_batch_train(self, batch_x: dict, batch_u: dict):
        return self.on_device(batch_x["img"], batch_x["label"])
