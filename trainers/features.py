"""Trainers of methods that learn from cached features of the frozen image tower, which they never run again."""
from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from dassl.data.sharing import share_of
from dassl.data.transforms import build_transform
from dassl.engine.hooks.stages import refuse_all_images
from trainers._base import PromptTrainer
from trainers.cached_features import CachedFeatures
from trainers.parts.prompted_model import Output


class FeatureTrainer(PromptTrainer):
    """Learns from features of random crops and is tested on kept ones: no view of an image passes the tower twice.

    `options.VIEWS` says how many views of a training image there are; epochs take them in turn.
    """

    bounds = {**PromptTrainer.bounds, "VIEWS": (1, 4096)}

    @cached_property
    def train_features(self) -> CachedFeatures:
        """Of the training images."""
        return CachedFeatures(self, "train_x", "train", self.model.joint)

    def every_view(self) -> tuple[Tensor, Tensor]:
        """(v * N, D) features of all views, as the head takes them, and their labels."""
        refuse_all_images(self)
        views = self.train_features.views(range(self.options.VIEWS)).flatten(0, 1)
        labels = self.train_features.labels.repeat(self.options.VIEWS)
        return F.normalize(views, dim=-1) if self.model.unit_norm else views, labels

    def view_of(self, epoch: int) -> int:
        """The view on which an epoch trains."""
        return epoch % self.options.VIEWS

    def before_train(self) -> None:
        super().before_train()
        if self.learns == "steps":          # in one pass over the images
            self.train_features.views([self.view_of(epoch) for epoch in range(self.start_epoch, self.max_epoch)])

    def training_batches(self) -> Iterator[dict]:
        """As of images, with their features (B, D) as "img"."""
        labels, features = self.train_features.labels, self.train_features.view(self.view_of(self.epoch))
        first = self.autosave.finished_batches
        self.autosave.begin_epoch(self)
        for number, indices in enumerate(self.train_loader_x.batch_sampler, first):
            self.autosave.begin_step()
            self.share = share_of(self.train_loader_x, number)
            rows = torch.tensor(self.stages.places(indices), device=labels.device)
            yield {"img": features[rows], "label": labels[rows], "index": indices}

    def output(self, batch: dict) -> Output:
        """Of features, or of images where a batch has these."""
        values = self.inputs(batch)
        return self.model(values) if values.dim() >= 4 else self.of_features(values)

    def of_features(self, features: Tensor) -> Output:
        """Features (B, D) as the tower gives them to an output."""
        return self.model.compare(F.normalize(features, dim=-1) if self.model.unit_norm else features)

    def answers(self, loader, split: str) -> Iterator[tuple[dict, Tensor, Tensor]]:
        features, images = CachedFeatures(self, split, joint=self.model.joint), loader.dataset
        if getattr(images, "data_source", None) is not features.items \
                or self.cfg.TEST.get("ATTACK", "") \
                or str(images.transform) != str(build_transform(self.cfg, is_train=False)):     # of others' making
            yield from super().answers(loader, split)
            return
        rows = features.view()
        for index in torch.arange(len(features)).split(self.cfg.DATALOADER.TEST.BATCH_SIZE):
            labels = features.labels[index]
            yield {"impath": [features.items[i].impath for i in index.tolist()], "index": index,
                   "domain": torch.tensor([features.items[i].domain for i in index.tolist()]),
                   "label": labels}, self.of_features(rows[index]).logits, labels


def add_feature_options(c, views: int = 1) -> None:
    """What every method has that learns from kept features."""
    c.VIEWS = views                     # random crops of each training image
    c.TEMPLATES = ()                    # sentences of a class, averaged; () is the dataset's own one
    c.PREC = "fp16"                     # fp16, amp, bf16 (autocast) or fp32; a CPU runs bf16 or fp32
