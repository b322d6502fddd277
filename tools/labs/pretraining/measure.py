"""Zero-shot accuracy of an exported model on the datasets that come with the project."""

import functools

import numpy as np
import torch
from PIL import Image

from clip import FrozenCLIP, encode_texts
from datasets import embedded
from datasets.embedded import SHAPES_PER_CLASS, digit_images, digit_splits, shape_combinations
from datasets.rendering import COLOURS, SHAPES, SHIFTS, TEXTURES
from tools.labs.pretraining.captions import DIGIT_WORDS
from tools.labs.pretraining.model import IMAGE, normalise


def _resize(images: np.ndarray) -> np.ndarray:
    """(N, S, S[, 3]) uint8 -> (N, 32, 32, 3) uint8, bicubic as in the transform of the datasets."""
    pictures = (Image.fromarray(image).convert("RGB") for image in images)
    return np.stack([np.array(picture.resize((IMAGE, IMAGE), Image.Resampling.BICUBIC)) for picture in pictures])


@functools.cache
def _digits(faded: bool) -> tuple[np.ndarray, np.ndarray]:
    images, labels = digit_images()
    return _resize(embedded.fade_digits(images) if faded else images), labels


@functools.cache
def _shapes(shift: str) -> np.ndarray:
    return np.stack([_resize(embedded.shape_images(c, shift)) for c in shape_combinations()])  # (48, 80, 32, 32, 3)


@torch.no_grad()
def _predict(model: FrozenCLIP, images: np.ndarray, prompts: list[str]) -> np.ndarray:
    text_features = encode_texts(model, prompts)
    pieces = (model.encode_image(normalise(torch.from_numpy(images[i:i + 256]))) for i in range(0, len(images), 256))
    return torch.cat([(features @ text_features.T).argmax(1) for features in pieces]).numpy()


def _percent(hits: np.ndarray) -> float:
    return round(100 * float(hits.mean()), 2)


def measure(model: FrozenCLIP, splits=("val", "test"), shifts=SHIFTS) -> dict[str, float]:
    """Percent correct for digits, their low-contrast copy, shapes (held-out combinations apart) and the shifts."""
    found = {}
    prompts = [f"a photo of the digit {word}." for word in DIGIT_WORDS]
    for name, faded in (("digits", False), ("digits_lowcontrast", True)):
        images, labels = _digits(faded)
        for split in splits:
            index = digit_splits()[split]
            found[f"{name}_{split}"] = _percent(_predict(model, images[index], prompts) == labels[index])
    classes, unseen = shape_combinations(), set(embedded.held_out_combinations())
    colours = tuple(COLOURS)
    prompts = [f"a photo of a {colours[c]} {TEXTURES[t]} {SHAPES[s]}." for s, c, t in classes]
    held_out = np.array([c in unseen for c in classes])
    ends = dict(zip(SHAPES_PER_CLASS, np.cumsum(list(SHAPES_PER_CLASS.values())), strict=True))
    for split in splits:
        part = slice(ends[split] - SHAPES_PER_CLASS[split], ends[split])
        for shift in shifts if split == splits[-1] else ("none",):
            images = _shapes(shift)[:, part]
            predicted = _predict(model, images.reshape(-1, *images.shape[2:]), prompts)
            hits = predicted.reshape(len(classes), -1) == np.arange(len(classes))[:, None]
            name = "shapes" if shift == "none" else f"shapes_{shift}"
            found[f"{name}_{split}"] = _percent(hits)
            if shift == "none":
                found[f"{name}_{split}_held_out"] = _percent(hits[held_out])
    return found
