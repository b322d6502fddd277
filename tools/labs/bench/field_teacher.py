"""One step of a trainer with a frozen teacher as published code takes it, on the towers of `field.py`.

Source: TCP (Yao et al., CVPR 2024), trainers/tcp.py and trainers/clip_text/model.py.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tools.labs.bench.field import plain_norm
from tools.labs.bench.field_steps import CoOpStep


class TCPStep(CoOpStep):
    """Words of each class's own take the context's place before one block, in prompts of 77 tokens.

    The teacher's features were computed before, on both sides.
    """

    def text_features(self, ctx: Tensor, classes: slice = slice(None)) -> Tensor:
        clip, field, p, words = self.clip.clip, self.clip, self.learned, self.trainer.model.brick("text_tuner")
        first, second = ([p[f"text_tuner.linear{i}.{kind}"] for kind in ("weight", "bias")] for i in (1, 2))
        hidden = F.linear(words.teacher[classes].float(), *first)                             # (C, D // 4)
        own = F.linear(hidden * torch.sigmoid(1.702 * hidden), *second).unflatten(1, (len(ctx), -1))    # (C, n, W)
        start, suffix = self.start[classes], self.suffix[classes]
        x = torch.cat([start, ctx.expand(len(start), -1, -1), suffix], dim=1)                 # (C, 77, W)
        x = (x + clip.positional_embedding).to(field.dtype).permute(1, 0, 2)
        for i, block in enumerate(field.text_blocks):
            if i == words.block:
                x = torch.cat([x[:1], own.permute(1, 0, 2).to(x.dtype), x[1 + len(ctx):]])
            x = block(x)
        x = plain_norm(clip.ln_final, x.permute(1, 0, 2))
        x = x[torch.arange(len(x), device=x.device), self.eot[classes]] @ clip.text_projection.to(x.dtype)
        return x / x.norm(dim=-1, keepdim=True)

    def loss(self, image_features: Tensor, texts: list[Tensor]) -> Tensor:
        teacher = self.trainer.model.brick("text_tuner").teacher
        distance = 1 - F.cosine_similarity(texts[0].float(), teacher, dim=1).mean()
        return super().loss(image_features, texts) + self.trainer.options.W * distance
