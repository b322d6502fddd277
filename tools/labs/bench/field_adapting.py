"""Test batches that learn, as published code takes them: image by image, on the towers of `field.py`.

Source: TPT (Shu et al., NeurIPS 2022), tpt_classification.py; TDA (Karmanov et al., CVPR 2024), tda_runner.py.
"""
from __future__ import annotations

import math

import torch
from torch import Tensor

from tools.labs.bench.field import FieldCLIP
from tools.labs.bench.field_steps import CoOpStep
from tools.labs.bench.timing import Watch


class TPTTest(CoOpStep):
    """One image after the other: its views, a step of the words through all 77 tokens of every class, the plain one."""

    def __call__(self, watch: Watch) -> Tensor:
        return torch.cat([self._tuned(views, watch) for views in self.images])                # (B, C)

    def _tuned(self, views: Tensor, watch: Watch) -> Tensor:
        c, scale = self.trainer.options, self.clip.scale
        words = self.learned["text.ctx"].detach().clone().requires_grad_()
        optimiser = torch.optim.AdamW([words], c.LR)
        with torch.no_grad():
            features = self.clip.encode_image(views).float()                                  # (V, D)
        watch.mark("image")
        with torch.enable_grad():
            logp = (scale * features @ self.text_features(words).float().t()).log_softmax(1)  # (V, C)
            chosen = (-(logp.exp() * logp).sum(1)).argsort()[:int(len(views) * c.SELECT)]
            mean = logp[chosen].logsumexp(0) - math.log(len(chosen))
            loss = -(mean.exp() * mean).sum()
        watch.mark("text")
        loss.backward()
        optimiser.step()
        watch.mark("backward")
        with torch.no_grad():
            image = self.clip.encode_image(views[:1]).float()
            watch.mark("image")
            logits = scale * image @ self.text_features(words).float().t()
        watch.mark("text")
        return logits


class TDATest:
    """One image after the other, with caches that are lists of tensors."""

    learns_images = learns_text = False

    def __init__(self, trainer, batch: dict, piece: int = 0):
        self.trainer, self.images, self.clip = trainer, batch["img"], FieldCLIP(trainer.model.clip)

    @torch.no_grad()
    def __call__(self, watch: Watch) -> Tensor:
        caches: tuple[dict, dict] = ({}, {})
        return torch.cat([self._answered(image[None], caches, watch) for image in self.images])

    def _answered(self, image: Tensor, caches: tuple[dict, dict], watch: Watch) -> Tensor:
        c, texts = self.trainer.options, self.trainer.model.fixed_text
        f = self.clip.encode_image(image).float()                                             # (1, D)
        watch.mark("image")
        logits = 100 * f @ texts.t()                                                          # (1, C)
        p, C = logits.softmax(1), len(texts)
        doubt, label = float(-(p * p.log()).sum()), int(logits.argmax())
        entries = [(c.SIZE, True, torch.eye(C, device=f.device)[label])]
        entries += [(c.SIZE_AGAINST, 0.2 < doubt / math.log2(C) < 0.5, ((p[0] > 0.03) & (p[0] < 1)).float())]
        for cache, (size, enters, value) in zip(caches, entries, strict=True):
            kept = cache.setdefault(label, [])
            if enters and len(kept) < size:
                kept.append((doubt, f, value))
            elif enters and doubt < kept[-1][0]:
                kept[-1] = (doubt, f, value)
            kept.sort(key=lambda entry: entry[0])
        for cache, alpha, beta in zip(caches, (c.ALPHA, -c.ALPHA_AGAINST), (c.BETA, c.BETA_AGAINST), strict=True):
            kept = [entry for label in sorted(cache) for entry in cache[label]]
            if kept:
                keys, values = torch.cat([key for _, key, _ in kept]), torch.stack([value for *_, value in kept])
                logits = logits + alpha * torch.exp(-beta * (1 - f @ keys.t())) @ values
        watch.mark("text")
        return logits
