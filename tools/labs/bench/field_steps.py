"""One step of each trainer as published code takes it, on the towers of `field.py`.

Source: CoOp (Zhou et al., IJCV 2022) and CoCoOp (CVPR 2022), trainers/coop.py and cocoop.py; MaPLe (Khattak et al.,
CVPR 2023), trainers/vpt.py; DAPT (Cho et al., ICCV 2023), trainers/dapt.py; DVP (Cai et al., ICML 2025), tools.py.
"""
from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from clip import tokenize
from tools.labs.bench.field import FieldCLIP
from tools.labs.bench.rows import PRM_DESCRIPTIONS, Row
from tools.labs.bench.timing import Watch


class CoOpStep:
    """Context words shared by all classes; the image tower is frozen.

    Args:
        trainer: ours; its frozen weights and its learned values, at this moment, are taken over.
        batch: "img" (B, 3, H, W) and "label" (B,).
        piece: classes whose text is encoded at once, 0 for all of them. In pieces, every piece's backward follows its
            forward with a fixed upstream gradient: the same work in the memory of one piece, with other gradients.
    Attributes:
        learned: {name in ours: leaf tensor}. context: what the text pass learns, by its name there.
    """

    learns_images, learns_text, context = False, True, "text.ctx"

    def __init__(self, trainer, batch: dict, piece: int = 0):
        self.trainer, self.images, self.labels, self.piece = trainer, batch["img"], batch["label"], piece
        clip = trainer.model.clip
        self.clip = FieldCLIP(clip)
        self.learned = {name: value.detach().clone().requires_grad_()
                        for name, value in trainer.model.prompt_learner.named_parameters()}
        self.optim = torch.optim.SGD(self.learned.values(), lr=0.002, momentum=0.9, weight_decay=5e-4)
        if self.learns_text:
            self.embed_words()

    def embed_words(self) -> None:
        """The fixed words around the context, of 77 tokens with it."""
        clip, n = self.trainer.model.clip, self.learned[self.context].shape[-2]
        ids = tokenize([f"{self.words(n)} {name}." for name in self.trainer.classes.names], clip.context_length)
        self.eot = ids.argmax(-1).to(self.images.device)                                      # (C,)
        with torch.no_grad():
            words = clip.embed_tokens(ids.to(self.images.device))                             # (C, 77, W)
        self.start, self.suffix = words[:, :1], words[:, 1 + n:]

    def words(self, n: int) -> str:
        """What is where n context words will be."""
        return " ".join("X" * n)

    def image_features(self) -> Tensor:
        return self.clip.encode_image(self.images)                                            # (B, D)

    def contexts(self, image_features: Tensor) -> list[Tensor]:
        """Context words (n, W) of every text pass that the step makes."""
        return [self.learned[self.context]]

    def text_features(self, ctx: Tensor, classes: slice = slice(None)) -> Tensor:
        """(C, D) of the prompts "[start] [context] [class] ." of 77 tokens."""
        start, suffix = self.start[classes], self.suffix[classes]
        prompts = torch.cat([start, ctx.expand(len(start), -1, -1), suffix], dim=1)           # (C, 77, W)
        return self.clip.encode_text(prompts, self.eot[classes])

    def logits(self, image_features: Tensor, texts: list[Tensor]) -> Tensor:
        return self.clip.scale * image_features.float() @ texts[0].float().t()                # (B, C)

    def loss(self, image_features: Tensor, texts: list[Tensor]) -> Tensor:
        return F.cross_entropy(self.logits(image_features, texts), self.labels)

    def __call__(self, watch: Watch) -> float:
        """One optimisation step; its parts are marked on the watch."""
        self.optim.zero_grad()
        image_features = self.image_features()
        watch.mark("image")
        contexts = self.contexts(image_features)
        texts = self._in_pieces(contexts, watch) if self.piece else [self.text_features(ctx) for ctx in contexts]
        loss = self.loss(image_features, texts)
        watch.mark("text")
        if loss.requires_grad:
            loss.backward()
        watch.mark("backward")
        self.optim.step()
        value = loss.item()
        watch.mark("update")
        return value

    def _in_pieces(self, contexts: list[Tensor], watch: Watch) -> list[Tensor]:
        leaves, texts = [ctx.detach().requires_grad_() for ctx in contexts], []
        for leaf in leaves:
            rows = []
            for first in range(0, len(self.eot), self.piece):
                rows.append(self.text_features(leaf, slice(first, first + self.piece)))
                watch.mark("text")
                rows[-1].backward(torch.full_like(rows[-1], 1e-3))
                rows[-1] = rows[-1].detach()
                watch.mark("backward")
            texts.append(torch.cat(rows))
        torch.autograd.backward(contexts, [leaf.grad for leaf in leaves])
        watch.mark("backward")
        return texts

    def gradients(self) -> dict[str, Tensor]:
        return {name: value.grad for name, value in self.learned.items()}


class CoCoOpStep(CoOpStep):
    """A context shifted by each image, and so a text pass for each, one after the other."""

    def contexts(self, image_features: Tensor) -> list[Tensor]:
        p = self.learned
        first, second = ([p[f"text.meta_net.linear{i}.{kind}"] for kind in ("weight", "bias")] for i in (1, 2))
        shifts = F.linear(F.linear(image_features.float(), *first).relu(), *second)           # (B, W)
        return [p["text.ctx"] + shift for shift in shifts]

    def logits(self, image_features: Tensor, texts: list[Tensor]) -> Tensor:
        return torch.stack([self.clip.scale * f @ t.float().t() for f, t in zip(image_features.float(), texts)])


class DAPTStep(CoOpStep):
    """Both prompts and the two dispersion losses."""

    learns_images = True

    def image_features(self) -> Tensor:
        return self.clip.encode_image(self.images, self.learned["visual.tokens"][0])

    def loss(self, image_features: Tensor, texts: list[Tensor]) -> Tensor:
        c = self.trainer.options
        intra = F.mse_loss(image_features.float(), self.trainer.prototypes[self.labels])
        inter = torch.pdist(texts[0].float(), p=2).pow(2).mul(-c.TXT_RBF_T).exp().mean()
        return super().loss(image_features, texts) + c.VIS_BETA * intra + c.TXT_BETA * inter


class VPTStep(CoOpStep):
    """Visual tokens where DAPT's VPT has them; the text features are fixed, as MaPLe's code fixes them."""

    learns_images, learns_text = True, False
    image_features = DAPTStep.image_features

    def contexts(self, image_features: Tensor) -> list[Tensor]:
        return []

    def logits(self, image_features: Tensor, texts: list[Tensor]) -> Tensor:
        return super().logits(image_features, [self.trainer.model.fixed_text])


class CoOpTest(CoOpStep):
    """A test batch: the prompts are encoded again for each."""

    @torch.no_grad()
    def __call__(self, watch: Watch) -> Tensor:
        image_features = self.image_features()
        watch.mark("image")
        logits = self.logits(image_features, [self.text_features(self.learned["text.ctx"])])
        watch.mark("text")
        return logits


class ZeroshotTest(VPTStep):
    """A test batch against text features that were encoded once, as CoOp's trainers/zsclip.py does."""

    learns_images = False

    def __init__(self, trainer, batch: dict, piece: int = 0):
        self.trainer, self.images, self.clip = trainer, batch["img"], FieldCLIP(trainer.model.clip)

    @torch.no_grad()
    def __call__(self, watch: Watch) -> Tensor:
        image_features = self.clip.encode_image(self.images)
        watch.mark("image")
        logits = self.logits(image_features, [])
        watch.mark("text")
        return logits


def prm_product(row: Row, device: str) -> Callable[[Tensor], Tensor]:
    """Scores of all descriptions (B, C, m) times the whole matrix (C*m, C), of which one entry in C is not zero."""
    C, m = row.classes, PRM_DESCRIPTIONS
    matrix = torch.zeros(C * m, C, device=device)
    matrix[torch.arange(C * m), torch.arange(C).repeat_interleave(m)] = 1 / m
    return lambda scores: scores.flatten(1) @ matrix
