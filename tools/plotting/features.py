"""Features of images and of class texts, of zero-shot CLIP and of a trained run, for the same images."""
from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from clip import encode_texts
from clip.templates import DEFAULT, fill
from dassl.config import with_values
from dassl.data.data_manager import build_data_loader
from dassl.data.transforms import build_transform
from dassl.engine import TrainerX
from dassl.engine.hooks.progress import over
from dassl.utils import UserError
from tools.evaluating.tested import rebuild, split_of
from tools.runs.run import Run, choose
from trainers.parts.prompted_model import Output, PromptedModel

SEED = 0                                # of the draw of images


@dataclass(frozen=True)
class Features:
    """Attributes: images (N, D) and texts (C, D), unit norm, float32, on the CPU. notes: how they were reduced to that.
    """

    images: Tensor
    texts: Tensor
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class BeforeAndAfter:
    """The same N images of some classes before and after training, and the texts of all C classes.

    Attributes:
        labels: (N,) among all classes. shown: labels that have images here.
    """

    before: Features
    after: Features
    labels: Tensor
    classnames: list[str]
    shown: list[int]
    split: str


@lru_cache(maxsize=1)
def read(run: Run, classes: tuple[str, ...], most_classes: int, images: int) -> BeforeAndAfter:
    """Features of up to `images` images of each class.

    Args:
        classes: names; () takes all, or `most_classes` evenly among them.
    Raises:
        UserError: the trainer gives no features of images and texts; too few images.
    """
    trainer = rebuild(run, exact=True)
    split, loader = split_of(run, trainer)
    loader_source = loader.dataset.data_source
    names = [trainer.lab2cname[label] for label in range(trainer.num_classes)]
    places = choose(names, classes) or [i * len(names) // most_classes for i in range(most_classes)]
    chosen = sorted(set(places)) if classes or len(names) > most_classes else list(range(len(names)))
    items = draw_images(loader_source, chosen, images)
    if len(items) < 4:
        raise UserError(f"A map needs at least 4 images, got {len(items)} of the chosen classes in the {split} split "
                        f"of {run.dataset_name}. Take --images or --classes larger.")
    after = trained(run, trainer, items)
    return BeforeAndAfter(zero_shot(trainer, items), after, torch.tensor([item.label for item in items]), names,
                          [c for c in chosen if any(item.label == c for item in items)], split)


def draw_images(source: Sequence, labels: Iterable[int], count: int) -> list:
    """Up to `count` items of each label, the same at every call, in the order of `labels` and of `source`."""
    by_label = defaultdict(list)
    for item in source:
        by_label[item.label].append(item)
    rng, drawn = random.Random(SEED), []
    for label in labels:
        own = by_label[label]
        kept = sorted(rng.sample(range(len(own)), count)) if len(own) > count else range(len(own))
        drawn += [own[i] for i in kept]
    return drawn


@torch.no_grad()
def trained(run: Run, trainer: TrainerX, items: list) -> Features:
    """What the run's model makes of the images and the classes, as it tests them.

    Raises:
        UserError: its model gives no `Output` with features of images and texts.
    """
    given: list[Output] = []
    if not isinstance(getattr(trainer, "model", None), PromptedModel) or getattr(trainer, "adapts", ""):
        raise UserError(_gives_none(run))
    hook = trainer.model.register_forward_hook(lambda module, arguments, out: given.append(out))
    images, texts, notes = [], [], ()
    try:
        for batch in over(_loader(trainer.cfg, items), f"{run.trainer}'s features"):
            pixels, label = trainer.parse_batch_test(batch)
            given.clear()
            trainer.model_inference(pixels)
            if not given or (out := given[-1]).text_features is None:
                raise UserError(_gives_none(run))
            flat, notes = one_each(out, trainer.model)
            images.append(flat.images)
            texts.append(flat.texts * len(label))
    finally:
        hook.remove()
    return Features(torch.cat(images), F.normalize(sum(texts), dim=-1), notes)


def _gives_none(run: Run) -> str:
    return (f"embeddings draws features of images and of class texts; {run.folder} is a run of "
            f"{run.trainer}, which is not tested by a PromptedModel that gives both, or learns at test time. Draw it "
            "with another figure: tools/plot.py --help.")


def one_each(out: Output, model: PromptedModel) -> tuple[Features, tuple[str, ...]]:
    """One feature for each image and each class, where a method has several, and words that say how."""
    images, texts, notes = out.image_features.float().cpu(), out.text_features.float().cpu(), []
    if images.dim() == 3 and model.want == "pooled":                              # (v, B, D)
        notes.append(f"an image is the mean of its features under {len(images)} prompts")
        images = F.normalize(images.mean(0), dim=-1)
    elif images.dim() == 3:                                                       # (B, L, D)
        notes.append(f"an image is the mean of its {images.shape[1]} tokens")
        images = F.normalize(images.mean(1), dim=-1)
    if texts.dim() == 3 and "scores" in out.aux:                                  # (C, m, D)
        notes.append(f"a class is the mean of its {texts.shape[1]} descriptions")
        texts = F.normalize(texts.mean(1), dim=-1)
    elif texts.dim() == 3 and model.text_want != "pooled":                        # (C, k, D)
        notes.append(f"a class is the mean of its {texts.shape[1]} tokens")
        texts = F.normalize(texts.mean(1), dim=-1)
    elif texts.dim() == 3 and not model.is_conditional:                              # (P, C, D)
        notes.append(f"a class is the mean of its {len(texts)} prompts")
        texts = F.normalize(texts.mean(0), dim=-1)
    elif texts.dim() == 3:                                                        # (B, C, D)
        notes.append("a class is the mean of the texts that the images shifted")
        texts = texts.mean(0)
    return Features(images, texts), tuple(notes)


@torch.no_grad()
def zero_shot(trainer: TrainerX, items: list) -> Features:
    """The same images as plain CLIP sees them, and the class names in the dataset's sentence."""
    clip, dataset = trainer.model.clip, trainer.dm.dataset
    steps = trainer.cfg.INPUT.TRANSFORMS
    plain = with_values(trainer.cfg, {"INPUT.SIZE": (clip.image_size, clip.image_size),
                                      "INPUT.TRANSFORMS": steps if "normalize" in steps else (*steps, "normalize")})
    loader = _loader(plain, items)
    images = torch.cat([clip.encode_image(batch["img"].to(trainer.device)).cpu()
                        for batch in over(loader, "zero-shot features")])
    texts = encode_texts(clip, fill(getattr(dataset, "template", None) or DEFAULT, dataset.classnames))
    return Features(images, texts.cpu())


def _loader(cfg, items: list):
    return build_data_loader(cfg, "SequentialSampler", items, cfg.DATALOADER.TEST.BATCH_SIZE, is_train=False,
                             tfm=build_transform(cfg, is_train=False))


def centred(features: Features) -> Features:
    """Images without their mean and texts without theirs, unit norm again: what sets the two apart is taken out."""
    return replace(features, images=F.normalize(features.images - features.images.mean(0), dim=-1),
                   texts=F.normalize(features.texts - features.texts.mean(0), dim=-1))
