"""Steps of methods with several prompts of each class, as published code takes them.

Source: PLOT (Chen et al., ICLR 2023), plot-coop/trainers/plot.py; ProDA (Lu et al., CVPR 2022) in
ml-stat-Sustech/CLIP_Calibration, trainers/classification/proda.py.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from clip import tokenize
from clip.tokenizer import encode
from tools.labs.bench.field_steps import CoOpStep


class PLOTStep(CoOpStep):
    """N contexts for each class in one text batch, matched with the tokens of an image by Sinkhorn's rounds."""

    def image_features(self) -> Tensor:
        return self.clip.encode_image(self.images, every=True)                                # (B, 1+M, D)

    def text_features(self, ctx: Tensor, classes: slice = slice(None)) -> Tensor:
        """(C, N, D) of the prompts of N contexts (N, n, W)."""
        start, suffix, eot = self.start[classes], self.suffix[classes], self.eot[classes]
        N, C = len(ctx), len(start)
        prompts = torch.cat([start.repeat(N, 1, 1), ctx.repeat_interleave(C, 0), suffix.repeat(N, 1, 1)], dim=1)
        return self.clip.encode_text(prompts, eot.repeat(N)).unflatten(0, (N, C)).transpose(0, 1)

    def logits(self, image_features: Tensor, texts: list[Tensor]) -> Tensor:
        local, text = image_features[:, 1:].float(), texts[0].float()                         # (B, M, D), (C, N, D)
        (B, M, _), (C, N, _) = local.shape, text.shape
        similarity = torch.einsum("bmd,cnd->bcmn", local, text).reshape(B * C, M, N)
        with torch.no_grad():
            K = torch.exp(-(1 - similarity) / 0.1)
            r, c = torch.ones(B * C, M, device=K.device), torch.ones(B * C, N, device=K.device)
            for _ in range(100):
                before = r
                r = (1 / M) / torch.matmul(K, c.unsqueeze(-1)).squeeze(-1)
                c = (1 / N) / torch.matmul(K.permute(0, 2, 1).contiguous(), r.unsqueeze(-1)).squeeze(-1)
                if (r - before).abs().mean().item() < 1e-2:
                    break
            plan = torch.matmul(r.unsqueeze(-1), c.unsqueeze(-2)) * K
        return self.clip.scale * (plan * similarity).sum(dim=(1, 2)).view(B, C)


class ProDAStep(CoOpStep):
    """Some prompts of each class with the name in several places, and all of them without it; the whole covariance."""

    def __init__(self, trainer, batch: dict, piece: int = 0):
        super().__init__(trainer, batch, piece)
        ctx, c = self.learned["text.ctx"], trainer.options
        self.drawn = sorted(trainer.unseen[:c.PROMPT_BS])
        names = trainer.classes.names
        self.lengths = [len(encode(name)) for name in names]
        ids = tokenize([f"{' '.join('X' * ctx.shape[1])}."], trainer.model.clip.context_length).to(self.images.device)
        with torch.no_grad():
            self.free_words = trainer.model.clip.embed_tokens(ids)                            # (1, 77, W)
        self.free_eot = ids.argmax(-1)

    def text_features(self, ctx: Tensor, classes: slice = slice(None)) -> Tensor:
        """(C, k, D) of the drawn ones of P contexts (P, n, W)."""
        start, suffix, eot = self.start[classes], self.suffix[classes], self.eot[classes]
        P, n, prompts = len(ctx), ctx.shape[1], []
        for p in self.drawn:
            ahead = 0 if p < P // 4 else n // 2 if p < P // 2 else n
            prompts += [torch.cat([first, ctx[p, :ahead], rest[:length], ctx[p, ahead:], rest[length:]])
                        for first, rest, length in zip(start, suffix, self.lengths[classes], strict=True)]
        features = self.clip.encode_text(torch.stack(prompts), eot.repeat(len(self.drawn)))   # (k*C, D)
        return features.unflatten(0, (len(self.drawn), len(start))).transpose(0, 1)

    def loss(self, image_features: Tensor, texts: list[Tensor]) -> Tensor:
        x, text, labels, scale = image_features.float(), texts[0].float(), self.labels, self.clip.scale
        (B, _), (C, k, _) = x.shape, text.shape
        mean = text.mean(dim=1)                                                               # (C, D)
        centred = (text - mean.unsqueeze(1)).permute(2, 0, 1)                                 # (D, C, k)
        covariance = centred @ centred.transpose(1, 2) / (k + 1)                              # (D, C, C)
        R = torch.einsum("bd,dij->bij", x ** 2, covariance)                                   # (B, C, C)
        rows, every = torch.arange(B), torch.arange(C)
        sigma = R[rows, labels, labels].unsqueeze(-1) + R[:, every, every] - 2 * R[rows, labels]
        upper = F.cross_entropy(scale * x @ mean.t() + 0.5 * scale ** 2 * sigma, labels)
        ctx = self.learned["text.ctx"]
        P, n, _ = ctx.shape
        words = self.free_words.expand(P, -1, -1)
        free = self.clip.encode_text(torch.cat([words[:, :1], ctx, words[:, 1 + n:]], dim=1), self.free_eot.repeat(P))
        pairs = (free.float() @ free.float().t())[~torch.eye(P, dtype=torch.bool, device=free.device)]
        return upper + self.trainer.options.ALPHA * pairs.abs().mean()
