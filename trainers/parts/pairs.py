"""Losses of B pairs of an image and a text: CLIP's contrastive one, and the two consistency losses of CyCLIP."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from clip import InputError


def contrastive(image_features: Tensor, text_features: Tensor, scale: Tensor) -> Tensor:
    """Mean cross-entropy of finding each image's text among all of the batch, and each text's image.

    Args:
        image_features, text_features: (B, D), unit norm; row b of both is one pair.
        scale: () factor on cosines.
    Returns:
        () at least 0.
    Source: CLIP (Radford et al., ICML 2021), Figure 3. Two equal texts in a batch count as each other's negatives, as
    in FLYP's code (locuslab/FLYP clip/loss.py) and CyCLIP's (src/train.py get_loss).
    """
    logits = scale * image_features @ text_features.t()                             # (B images, B texts)
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.t(), target)) / 2


def in_modal(image_features: Tensor, text_features: Tensor) -> Tensor:
    """How far cosines between two images are from those between their texts: squared, summed over pairs, over B.

    Args: see `contrastive`.
    Source: CyCLIP (Goel et al., NeurIPS 2022), src/train.py get_loss: the mean over B x B times B. The factor on
    cosines cancels there, so it gets no gradient.
    """
    images, texts = image_features @ image_features.t(), text_features @ text_features.t()          # (B, B)
    return (images - texts).square().sum() / len(images)


def cross_modal(image_features: Tensor, text_features: Tensor) -> Tensor:
    """How far the cosine of image i and text j is from that of image j and text i; otherwise as `in_modal`."""
    cosines = image_features @ text_features.t()                                    # (B, B)
    return (cosines - cosines.t()).square().sum() / len(cosines)


def consistency(image_features: Tensor, text_features: Tensor, weights: tuple[float, float]) -> dict[str, Tensor]:
    """Both, by name, times their weights; those of weight 0 are left out."""
    found = {}
    for name, term, weight in (("in_modal", in_modal, weights[0]), ("cross_modal", cross_modal, weights[1])):
        if weight:
            found[name] = weight * term(image_features, text_features)
    return found


def pairs_of(image_features: Tensor, text_features: Tensor | None, labels: Tensor,
             by_image: bool = False) -> tuple[Tensor, Tensor]:
    """Images and the texts of their classes.

    Args:
        image_features: (B, D).
        text_features: (C, D), or (B, C, D) where they differ between images (`by_image`).
        labels: (B,) in [0, C).
    Returns:
        (B, D) both.
    Raises:
        InputError: several features of an image; no texts, or several of a class.
    """
    shapes = [None if f is None else tuple(f.shape) for f in (image_features, text_features)]
    if image_features.dim() != 2 or text_features is None or text_features.dim() != 2 + by_image:
        raise InputError("Losses of image-text pairs need one feature of each image (B, D) and one text of each class "
                         f"(C, D), got {shapes[0]} and {shapes[1] or 'no texts'}.")
    rows = (torch.arange(len(labels), device=labels.device), labels) if by_image else labels
    return image_features, text_features[rows]
