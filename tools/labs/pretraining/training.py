"""The training of the embedded CLIP: rendered batches, losses, optimisers and the schedule."""
from __future__ import annotations

import argparse
import csv
import platform
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip import FrozenCLIP, TextTokens
from datasets.embedded import held_out_combinations
from datasets.rendering import COLOURS, GREYS, SHAPES, TEXTURES, render_shapes
from tools.labs.pretraining.captions import ABSENT, ATTRIBUTES, DIGIT_WORDS, GLYPH_WORDS, Vocabulary, describe, is_true
from tools.labs.pretraining.glyphs import LOOKS, render_glyphs
from tools.labs.pretraining.measure import measure
from tools.labs.pretraining.model import WIDTH, export, normalise, untrained
from tools.labs.pretraining.muon import Muon

COLUMNS = ("digits_val", "shapes_val", "shapes_val_held_out")


class Rendered(torch.utils.data.Dataset):
    """Item i is the whole i-th batch; it depends on (seed, i) alone, so workers change nothing."""

    def __init__(self, vocabulary: Vocabulary, steps: int, batch: int, seed: int):
        self.vocabulary, self.steps, self.batch, self.seed = vocabulary, steps, batch, seed
        held_out = set(held_out_combinations())
        every = np.ndindex(len(SHAPES), len(COLOURS), len(TEXTURES))
        self.combinations = np.array([c for c in every if c not in held_out])

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        rng = np.random.RandomState([self.seed, step])
        n = self.batch // 2
        difficulty = min(1.0, step / (0.6 * self.steps))
        attributes = np.full((self.batch, len(ATTRIBUTES)), ABSENT)
        attributes[:n, 0] = np.where(rng.uniform(size=n) < 0.75, rng.randint(len(DIGIT_WORDS), size=n),
                                     rng.randint(len(DIGIT_WORDS), len(GLYPH_WORDS), size=n))
        pixelated = 0.3 + 0.3 * difficulty
        rest = (1 - pixelated) / 3
        attributes[:n, 1] = rng.choice(len(LOOKS), size=n, p=(rest, pixelated, rest, rest))
        rows = self.combinations[rng.randint(len(self.combinations), size=self.batch - n)]
        attributes[n:, 2:5] = rows
        other = (rows[:, 1] + rng.randint(1, len(COLOURS), size=len(rows))) % len(COLOURS)
        coloured = rng.uniform(size=len(rows)) < 0.25
        attributes[n:, 5] = np.where(coloured, len(GREYS) + other, rng.randint(len(GREYS), size=len(rows)))
        glyphs = render_glyphs(rng, attributes[:n, 0], attributes[:n, 1], difficulty)
        shapes = render_shapes(rng, *attributes[n:, 2:].T, size=32, noise=0.02 + 0.05 * difficulty * rng.uniform())
        captions, stated, own = describe(rng, attributes)
        table, end = self.vocabulary.pad(captions)
        images = np.round(np.concatenate([glyphs, shapes]) * 255).astype(np.uint8)
        true = is_true(stated, attributes)
        arrays = {"images": images, "attributes": attributes, "table": table, "end": end, "own": own, "true": true}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


def contrastive_loss(logits: Tensor, true: Tensor, own: Tensor) -> Tensor:
    """CLIP's symmetric loss where several captions are true of an image and a caption of several images.

    Image to text: the image's own caption against the false ones. Text to image: every image that the caption is true
    of against those that it is not true of, averaged.

    Args:
        logits: (B, U); true: (B, U) bool; own: (B,) index of each image's own caption.
    """
    false = logits.masked_fill(true, float("-inf"))
    mine = logits.gather(1, own[:, None])  # (B, 1)
    to_text = torch.logaddexp(mine[:, 0], false.logsumexp(1)) - mine[:, 0]
    pairs = (torch.logaddexp(logits, false.logsumexp(0, keepdim=True)) - logits) * true
    to_image = pairs.sum(0) / true.sum(0)
    return (to_text.mean() + to_image.mean()) / 2


class AttributeHeads(nn.Module):
    """Linear classifiers of every attribute on the class token; they guide the first steps and are thrown away."""

    def __init__(self):
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(WIDTH, len(words)) for words in ATTRIBUTES.values())

    def forward(self, features: Tensor, attributes: Tensor) -> Tensor:
        targets = attributes.T.where(attributes.T >= 0, -100)
        losses = [F.cross_entropy(head(features), target) for head, target in zip(self.heads, targets, strict=True)]
        return torch.stack(losses).mean()


def optimisers(model: FrozenCLIP, heads: AttributeHeads, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for everything else."""
    named = dict(model.named_parameters())
    matrices = [p for name, p in named.items() if "resblocks" in name and p.ndim == 2]
    chosen = {id(p) for p in matrices}
    others = [p for p in named.values() if id(p) not in chosen] + list(heads.parameters())
    return [Muon(matrices, lr, weight_decay=0.05),
            torch.optim.AdamW(others, lr, betas=(0.9, 0.98), weight_decay=0.0)]


def train(args: argparse.Namespace, weights: Path, log: Path) -> dict:
    """Runs the whole schedule.

    Args:
        weights, log: rewritten there with each measurement.
    Returns:
        What goes into the .json: settings, seconds, final numbers in percent.
    """
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    vocabulary = Vocabulary()
    model, heads = untrained(len(vocabulary.ids)), AttributeHeads()
    both = optimisers(model, heads, args.lr)
    data = Rendered(vocabulary, args.steps, args.batch, args.seed)
    loader = torch.utils.data.DataLoader(data, batch_size=None, num_workers=args.workers)
    start, mean = time.time(), None
    with log.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "loss", "lr", "seconds", *COLUMNS])
        for step, batch in enumerate(loader, 1):
            warm = min(1.0, step / args.warmup)
            lr = args.lr * warm * max(0.01, min(1.0, (args.steps - step) / ((1 - args.flat) * args.steps)))
            for group in (g for optimiser in both for g in optimiser.param_groups):
                group["lr"] = lr
            hidden = model.encode_image(normalise(batch["images"]), joint=False, unit_norm=False)  # (B, W)
            image_features = F.normalize(hidden @ model.visual.proj, dim=-1)
            text_features = model.encode_text(TextTokens(model.embed_tokens(batch["table"]), batch["end"]))
            logits = model.logit_scale.exp() * image_features @ text_features.T  # (B, U)
            loss = contrastive_loss(logits, batch["true"], batch["own"])
            total = loss + args.auxiliary * heads(hidden, batch["attributes"])
            for optimiser in both:
                optimiser.zero_grad()
            total.backward()
            for optimiser in both:
                optimiser.step()
            with torch.no_grad():
                model.logit_scale.clamp_(max=float(np.log(100)))
            mean = loss.item() if mean is None else 0.98 * mean + 0.02 * loss.item()
            if step % args.every == 0 or step == args.steps:
                seconds = time.time() - start
                found = measure(export(model, vocabulary, weights), splits=("val",), shifts=("none",))
                writer.writerow([step, f"{mean:.4f}", f"{lr:.2e}", round(seconds), *(found[name] for name in COLUMNS)])
                file.flush()
                numbers = "  ".join(f"{name} {value:.1f}" for name, value in found.items())
                print(f"step {step}/{args.steps}  loss {mean:.3f}  {numbers}  {seconds:.0f} s, "
                      f"{seconds / step * (args.steps - step):.0f} s to go", flush=True)
    settings = {k: v for k, v in vars(args).items() if k not in ("out", "workers", "measure_only")}
    return {
        "settings": settings, "seconds": round(time.time() - start),
        "parameters": sum(p.numel() for p in model.parameters()),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "zero_shot": measure(export(model, vocabulary, weights)),
    }
