"""Alignment and uniformity of the features that a final test compares, for results.json."""
from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from dassl.engine.hooks import Hook
from dassl.metrics import embedding

MOST = 2000                             # images that are compared in pairs, evenly among all


class Geometry(Hook):
    """Listens to the model's head, to which every method gives its features; silent where it gives others.

    A method that learns at test time, or that has several features for an image, is left out.
    """

    handle = None

    def before_test(self, trainer, final: bool) -> None:
        self.leave()
        self.images, self.labels, self.heard, self.texts, self.seen = [], [], [], None, 0
        loader = trainer.test_loader or trainer.val_loader
        self.every = max(1, math.ceil(len(loader.dataset) / MOST)) if loader is not None else 1
        if final and trainer.adapts != "image":
            self.handle = trainer.model.head.register_forward_hook(self.hear)

    def hear(self, head, inputs, output) -> None:
        images, texts = inputs[0], inputs[1] if len(inputs) > 1 else None
        if images.dim() == 2:
            self.heard.append(images.detach())
            self.texts = texts.detach() if torch.is_tensor(texts) else None

    def answered(self, trainer, batch, output, label) -> None:
        heard, self.heard = self.heard, []
        if self.handle is None or len(heard) != 1 or len(heard[0]) != len(label):
            return
        first = -self.seen % self.every
        self.seen += len(label)
        self.images.append(heard[0][first::self.every])
        self.labels.append(label[first::self.every])

    def tested(self, trainer, split: str, results: dict) -> None:
        self.leave()
        trainer.recorded.pop("embedding", None)
        if not self.images:
            return
        images, labels, texts = torch.cat(self.images), torch.cat(self.labels), self.texts
        if texts is not None and (texts.shape[-1] != images.shape[1] or trainer.model.is_conditional):
            texts = None
        if texts is not None:
            C = trainer.num_classes
            texts = texts[None] if texts.dim() == 2 else texts if texts.shape[1] == C else texts.transpose(0, 1)
            texts = F.normalize(texts.float(), dim=-1) if texts.dim() == 3 and texts.shape[1] == C else None
        images = F.normalize(images.float(), dim=-1)
        trainer.recorded["embedding"] = {"images": len(images), **embedding.measures(images, labels.to(images.device),
                                                                                      texts)}

    def leave(self) -> None:
        if self.handle is not None:
            self.handle.remove()
            self.handle = None
