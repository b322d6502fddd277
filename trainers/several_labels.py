"""Images that have several labels (VOC2007): training takes all of them; a method that cannot says so."""
from __future__ import annotations

import logging
from functools import cached_property

import torch
from torch import Tensor

logger = logging.getLogger(__name__)


class SeveralLabels:
    """For a `PromptTrainer`, in front of it."""

    @cached_property
    def several_labels(self) -> Tensor | None:
        """(N, C) 0 or 1, of the training images, where some have several; None also where tasks follow each other."""
        several = getattr(self.dm.dataset, "has_several_labels", False) and not self.stages
        return self.dm.dataset.truth("train_x").to(self.device) if several else None

    def with_all_labels(self, batch: dict) -> dict:
        """The batch, with "labels" (B, C) of its images where some of the dataset's have several."""
        if self.several_labels is None:
            return batch
        return {**batch, "labels": self.several_labels[torch.as_tensor(batch["index"], device=self.device)]}

    def after_train(self) -> None:
        if self.learns != "nothing" and getattr(self.dm.dataset, "has_several_labels", False):
            self.recorded["labels_learned"] = "all" if self.took_all_labels else "the first of each image"
            if not self.took_all_labels:
                logger.warning("Some images of %s have several labels; %s learns the first of each alone",
                               self.cfg.DATASET.NAME, type(self).__name__)
        super().after_train()
