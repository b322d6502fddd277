"""One step of a trainer with a frozen teacher as published code takes it, on the towers of `field.py`.

Source: TCP (Yao et al., CVPR 2024), trainers/tcp.py and trainers/clip_text/model.py.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tools.labs.bench.field import behind_first
from tools.labs.bench.field_steps import CoOpStep


class TCPStep(CoOpStep):
    """Words of each class's own take the context's place before one block, in prompts of 77 tokens.

    The teacher's features were computed before, on both sides.
    """

    def text_features(self, ctx: Tensor, classes: slice = slice(None)) -> Tensor:
        p, words = self.learned, self.trainer.model.brick("text_tuner")
        first, second = ([p[f"text_tuner.linear{i}.{kind}"] for kind in ("weight", "bias")] for i in (1, 2))
        hidden = F.linear(words.teacher[classes].float(), *first)                             # (C, D // 4)
        own = F.linear(hidden * torch.sigmoid(1.702 * hidden), *second).unflatten(1, (len(ctx), -1))    # (C, n, W)
        start, suffix = self.start[classes], self.suffix[classes]
        prompts = torch.cat([start, ctx.expand(len(start), -1, -1), suffix], dim=1)           # (C, 77, W)
        enter = behind_first({words.block: own.permute(1, 0, 2)}, joins=-1)
        return self.clip.encode_text(prompts, self.eot[classes], enter)

    def loss(self, image_features: Tensor, texts: list[Tensor]) -> Tensor:
        teacher = self.trainer.model.brick("text_tuner").teacher
        distance = 1 - F.cosine_similarity(texts[0].float(), teacher, dim=1).mean()
        return super().loss(image_features, texts) + self.trainer.options.W * distance
