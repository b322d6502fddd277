"""One step of the pixel prompts as published code takes it, on the towers of `field.py`.

The whole canvas is learned behind a mask, decoupled prompts see the tower one after the other, and all descriptions of
all classes are compared with every view. Source: AttrVR (Cai et al., ICLR 2025), methods/vp.py and tools.py; DVP (Cai
et al., ICML 2025), experiments/fs_dvp_cse.py and tools.py.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tools.labs.bench.field import FieldCLIP
from tools.labs.bench.timing import Watch


class ARStep:
    """One border around a smaller image, against one sentence for each class.

    Args:
        trainer: ours; its frozen weights, texts and learned values, at this moment, are taken over.
        batch: "img" (B, 3, H, W) and "label" (B,).
        piece: not used: no text is learned.
    Attributes:
        canvases: a leaf (3, S, S) for each prompt, of which the mask lets the border through.
    """

    learns_images, learns_text, in_pixel_space = True, False, True

    def __init__(self, trainer, batch: dict, piece: int = 0):
        self.trainer, self.images, self.labels = trainer, batch["img"], batch["label"]
        model = trainer.model
        self.clip, pixel = FieldCLIP(model.clip), model.brick("pixel")
        self.names = {f"pixel.{name}": i for i, (name, _) in enumerate(pixel.named_parameters())}
        frames = list(pixel) if isinstance(pixel, torch.nn.ModuleList) else [pixel]
        self.frame = frames[0]
        self.mask = self.frame.on_canvas(torch.ones_like(self.frame.program))
        self.canvases = [frame.on_canvas(frame.program.detach()).requires_grad_() for frame in frames]
        self.optim = torch.optim.SGD(self.canvases, lr=40.0, momentum=0.9)
        self.texts = self.fixed_texts()

    def fixed_texts(self) -> Tensor:
        return self.trainer.model.fixed_text                                                  # (C, D)

    def view(self, canvas: Tensor) -> Tensor:
        """(B, 3, S, S), normalised."""
        before, after, model = self.frame.before, self.frame.after, self.trainer.model
        shown = F.pad(self.images, (before, after, before, after)) + torch.sigmoid(canvas) * self.mask
        return (shown - model.mean) / model.std

    def similarities(self) -> list[Tensor]:
        """Scaled cosines of every view with all texts."""
        return [self.clip.scale * self.clip.encode_image(self.view(canvas)).float() @ self.texts.t()
                for canvas in self.canvases]

    def logits(self, similarities: list[Tensor]) -> Tensor:
        return similarities[0]                                                                # (B, C)

    def __call__(self, watch: Watch) -> float:
        self.optim.zero_grad()
        with self.trainer.mixed.autocast():
            similarities = self.similarities()
        watch.mark("image")
        loss = F.cross_entropy(self.logits(similarities), self.labels)
        watch.mark("text")
        loss.backward()
        watch.mark("backward")
        self.optim.step()
        value = loss.item()
        watch.mark("update")
        return value

    def gradients(self) -> dict[str, Tensor]:
        return {name: self.canvases[i].grad.flatten(1)[:, self.frame.places] for name, i in self.names.items()}


class VPStep(ARStep):
    """A frame added to the normalised image."""

    def view(self, canvas: Tensor) -> Tensor:
        return self.images + canvas * self.mask


class AttrVRStep(ARStep):
    """Descriptions of two kinds; in each the best three of a class count."""

    def fixed_texts(self) -> Tensor:
        return self.trainer.model.head.features.flatten(0, 1)                                 # (C*m, D)

    def logits(self, similarities: list[Tensor]) -> Tensor:
        c, B = self.trainer.options, len(self.images)
        scores = similarities[0].view(B, len(self.trainer.classes), 2, c.NUM_DESCRIPTIONS)
        best = scores.topk(c.TOP_K, dim=-1).values.mean(-1)                                   # (B, C, 2)
        return c.ALPHA * best[..., 0] + (1 - c.ALPHA) * best[..., 1]


class DVPStep(AttrVRStep):
    """A border for each cause, its own descriptions, and the whole reweighting matrix (C*m, C)."""

    def __init__(self, trainer, batch: dict, piece: int = 0):
        super().__init__(trainer, batch, piece)
        weights = trainer.model.head.mapping.weights                                          # (C, m)
        C, m = weights.shape
        self.matrix = torch.zeros(C * m, C, device=weights.device)
        self.matrix[torch.arange(C * m), torch.arange(C).repeat_interleave(m)] = weights.flatten()
        self.counts = torch.zeros(C, m, device=weights.device)

    def logits(self, similarities: list[Tensor]) -> Tensor:
        B, C, each = len(self.images), len(self.trainer.classes), self.trainer.options.NUM_DESCRIPTIONS
        own = [s.view(B, C, -1)[..., i * each:(i + 1) * each] for i, s in enumerate(similarities)]
        scores = torch.cat(own, dim=-1)                                                       # (B, C, m)
        best = scores[torch.arange(B), self.labels].topk(self.trainer.options.TOP_K).indices  # (B, k)
        for label, places in zip(self.labels.tolist(), best):
            self.counts[label, places] += 1
        return scores.flatten(1) @ self.matrix                                                # (B, C)
