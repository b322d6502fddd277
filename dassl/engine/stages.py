"""A run whose classes arrive one after the other, as in class-incremental learning."""
from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from dassl.data.data_manager import build_data_loader
from dassl.data.transforms import build_transform
from dassl.utils.errors import UserError

logger = logging.getLogger(__name__)


class Staged:
    """Beside a TrainerX, e.g. `class L2P(Staged, PromptTrainer)`. A stage trains on the images of its classes alone.

    The epochs are shared out evenly over the stages, in their order, so a resumed run finds its stage by its epoch.

    Attributes:
        stage: the present one, from 0; -1 before training.
    """

    stage = -1

    def stages(self) -> Sequence[Sequence[int]]:
        """The labels of each stage, e.g. [[0, 1], [2, 3]]; each label once."""
        raise NotImplementedError(f"{type(self).__name__} does not define stages().")

    def before_stage(self) -> None:
        """`self.stage` begins, in a new run and in a resumed one."""

    def after_stage(self) -> None:
        """`self.stage` has ended."""

    @property
    def classes_now(self) -> Tensor:
        """(C,) bool: the classes of the present stage."""
        return self._among([self.stage])

    @property
    def classes_so_far(self) -> Tensor:
        """(C,) bool: the classes of the present stage and of those before it."""
        return self._among(range(self.stage + 1))

    def _among(self, numbers) -> Tensor:
        stages, chosen = self.stages(), torch.zeros(self.num_classes, dtype=torch.bool, device=self.device)
        for number in numbers:
            chosen[list(stages[number])] = True
        return chosen

    def before_train(self) -> None:
        labels = sorted(label for stage in self.stages() for label in stage)
        if labels != sorted(set(labels)) or not set(labels) <= set(range(self.num_classes)):
            raise UserError(f"Stages must hold labels of 0 to {self.num_classes - 1}, each once, got "
                            f"{[list(stage) for stage in self.stages()]}.")
        if self.max_epoch < len(self.stages()):
            raise UserError(f"{len(self.stages())} stages need an epoch each, got OPTIM.MAX_EPOCH {self.max_epoch}.")
        super().before_train()

    def before_epoch(self) -> None:
        now = self.epoch * len(self.stages()) // self.max_epoch
        if now != self.stage:
            self.stage = now
            self.train_loader_x = self._loader_of(set(self.stages()[now]))
            logger.info("Stage %d of %d: %d classes", now + 1, len(self.stages()), len(self.stages()[now]))
            self.before_stage()
        super().before_epoch()

    def after_epoch(self) -> None:
        if (self.epoch + 1) * len(self.stages()) // self.max_epoch != self.stage:
            self.after_stage()
        super().after_epoch()

    def _loader_of(self, labels: set[int]):
        c, items = self.cfg.DATALOADER.TRAIN_X, [item for item in self.dm.dataset.train_x if item.label in labels]
        return build_data_loader(self.cfg, c.SAMPLER, items, c.BATCH_SIZE, c.N_DOMAIN, c.N_INS,
                                 build_transform(self.cfg, is_train=True), is_train=True,
                                 cache=getattr(self.dm, "image_cache", None))
