"""Cross-entropy on all source domains together: the baseline of domain generalisation."""
from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from dassl.engine.build import TRAINER_REGISTRY
from dassl.engine.trainer import TrainerX
from dassl.metrics import compute_accuracy


class CrossEntropy:
    """A mixin for TrainerX or TrainerXU: SimpleNet over MODEL.BACKBONE and MODEL.HEAD learns labelled images."""

    def forward_backward(self, batch: dict, *unlabelled: dict) -> dict:
        images, labels = self.parse_batch_train(batch, *unlabelled)
        logits = self.model(images)                                                     # (B, C)
        return self.learn(logits, labels, F.cross_entropy(logits, labels))

    def learn(self, logits: Tensor, labels: Tensor, loss: Tensor) -> dict:
        self.model_backward_and_update(loss)
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        return {"loss": loss.item(), "acc": compute_accuracy(logits, labels)[0].item()}

    def parse_batch_train(self, batch: dict, *unlabelled: dict):
        return self.on_device(batch["img"], batch["label"])


@TRAINER_REGISTRY.register()
class Vanilla(CrossEntropy, TrainerX):
    pass
