"""Steps of methods with prompts in deep blocks of both towers, as published code takes them, on `field.py`'s towers.

Every class's prompt has 77 tokens and passes every block, and every token of an image is computed to the end. Source:
MaPLe (Khattak et al., CVPR 2023), PromptSRC (Khattak et al., ICCV 2023) and MMRL (Guo and Gu, CVPR 2025), their
trainers/ and clip/model.py.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from clip import tokenize
from tools.labs.bench.field import Enter, behind_first, unit
from tools.labs.bench.field_steps import CoOpStep


class DeepStep(CoOpStep):
    """Words and visual tokens of their own in the first blocks; a step says what they are."""

    learns_images = True

    def words(self, n: int) -> str:
        """The initial words, which stay in the sentence where fewer of them are learned."""
        return self.trainer.options.CTX_INIT or super().words(n)

    def text_tokens(self) -> list[Tensor]:
        """(n, W) of each prompted block after the first."""
        return list(self.learned.get("text_tuner.tokens", ()))

    def visual_tokens(self) -> list[Tensor]:
        """(n, W) of each prompted block."""
        return list(self.learned["visual.tokens"])

    def text_features(self, ctx: Tensor, classes: slice = slice(None)) -> Tensor:
        start, suffix = self.start[classes], self.suffix[classes]
        prompts = torch.cat([start, ctx.expand(len(start), -1, -1), suffix], dim=1)           # (C, 77, W)
        deeper = dict(enumerate(self.text_tokens(), 1))
        return self.clip.encode_text(prompts, self.eot[classes], behind_first(deeper))

    def image_features(self) -> Tensor:
        tokens = self.visual_tokens()

        def enter(block: int, x: Tensor) -> Tensor:
            if not -1 <= block < len(tokens) or block == 0:
                return x
            own = tokens[max(block, 0)][:, None].expand(-1, x.shape[1], -1).to(x.dtype)       # (n, B, W)
            return torch.cat([x if block < 0 else x[:-len(own)], own])

        return unit(self.clip.image_tokens(self.images, enter, 0).float() @ self.clip.clip.visual.proj)


class MaPLeStep(DeepStep):
    """Visual tokens are projections of the words, block by block."""

    def visual_tokens(self) -> list[Tensor]:
        p = self.learned
        layers = ["proj", *(f"deeper.{i}" for i in range(len(self.text_tokens())))]
        return [F.linear(words, p[f"visual.{layer}.weight"], p[f"visual.{layer}.bias"])
                for layer, words in zip(layers, [p["text.ctx"], *self.text_tokens()], strict=True)]


class PromptSRCStep(DeepStep):
    """Independent prompts, and distances to a frozen teacher whose image tower runs in every step."""

    def loss(self, image_features: Tensor, texts: list[Tensor]) -> Tensor:
        c, logits, teacher = self.trainer.options, self.logits(image_features, texts), self.trainer.teacher_text
        with torch.no_grad():
            frozen = self.clip.encode_image(self.images).float()
            zero_shot = self.clip.scale * frozen @ teacher.t()
        divergence = F.kl_div(logits.log_softmax(1), zero_shot.log_softmax(1), reduction="sum", log_target=True)
        return F.cross_entropy(logits, self.labels) + divergence / logits.numel() \
            + c.TEXT_LOSS_WEIGHT * F.l1_loss(texts[0].float(), teacher) \
            + c.IMAGE_LOSS_WEIGHT * F.l1_loss(image_features.float(), frozen)


class MMRLStep(CoOpStep):
    """Projected tokens join both towers at a block and lengthen the text, and the image tower gives two features."""

    learns_images, context = True, "visual.tokens"

    def embed_words(self) -> None:
        clip = self.trainer.model.clip
        ids = tokenize(self.trainer.classes.sentences(), clip.context_length).to(self.images.device)
        self.eot = ids.argmax(-1)
        with torch.no_grad():
            self.sentences = clip.embed_tokens(ids)                                           # (C, 77, W)
        first = min(self.trainer.model.brick("visual").layer_of)
        L = clip.context_length + len(self.learned[self.context])
        mask = torch.full((L, L), float("-inf"), device=self.images.device).triu(1)
        for block in list(self.clip.text_blocks)[first:]:
            block.mask = mask

    def projected(self, tower: str, tokens: Tensor, layer: int) -> Tensor:
        weight, bias = (self.learned[f"{tower}.deeper.{layer}.{kind}"] for kind in ("weight", "bias"))
        return F.linear(tokens, weight, bias)                                                 # (K, W)

    def enter(self, tower: str, tokens: Tensor) -> Enter:
        layer_of = self.trainer.model.brick("visual").layer_of
        return behind_first({block: self.projected(tower, tokens, layer) for block, layer in layer_of.items()},
                            joins=min(layer_of))

    def text_features(self, tokens: Tensor, classes: slice = slice(None)) -> Tensor:
        return self.clip.encode_text(self.sentences[classes], self.eot[classes] + len(tokens),
                                     self.enter("text_tuner", tokens))

    def image_features(self) -> Tensor:
        """(2, B, D): of the class token, and of the mean of the other ones."""
        tokens, visual = self.learned[self.context], self.clip.clip.visual
        x = self.clip.image_tokens(self.images, self.enter("visual", tokens)).float()
        rep = x[:, 1:1 + len(tokens)].mean(dim=1) @ self.learned["head.projection"]
        return torch.stack([unit(x[:, 0] @ visual.proj), unit(rep)])

    def loss(self, image_features: Tensor, texts: list[Tensor]) -> Tensor:
        c, text, teacher = self.trainer.options, texts[0].float(), self.trainer.teacher_text
        main, rep = image_features.float()
        with torch.no_grad():
            frozen = self.clip.encode_image(self.images).float()
        near = [1 - F.cosine_similarity(a, b, dim=1).mean() for a, b in ((main, frozen), (text, teacher))]
        return c.ALPHA * F.cross_entropy(100 * main @ text.t(), self.labels) \
            + (1 - c.ALPHA) * F.cross_entropy(100 * rep @ text.t(), self.labels) + c.REG_WEIGHT * sum(near)
