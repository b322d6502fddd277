"""How far class texts spread on the unit sphere, and how close the images of a class stay together.

Source: uniformity is Wang and Isola's (ICML 2020, eq. 2); spread texts and compact images are what Distribution-Aware
Prompt Tuning (Cho et al., ICCV 2023) trains for; the gap is Liang et al.'s (NeurIPS 2022, section 4).
"""
from __future__ import annotations

import torch
from torch import Tensor

from dassl.metrics.embedding import uniformity

BANDWIDTH = 2.0                         # of the Gaussian, in Wang and Isola's measurements and in DAPT's loss
MEASURES = {                            # name -> what it is called, which way is better, what it means
    "text_uniformity": ("texts: uniformity", "lower: more spread", "log of the inter-dispersion of the class texts; "
                        "lower: the classes spread more evenly"),
    "text_inter_dispersion": ("texts: inter-dispersion", "lower: more spread", "mean of exp(-2 × squared distance) "
                              "over all pairs of class texts; lower: more spread"),
    "image_within": ("images: within a class", "lower: more compact", "mean distance of an image to the mean of its "
                     "class; lower: more compact classes"),
    "image_between": ("images: between classes", "higher: farther apart", "mean distance between two class means; "
                      "higher: classes farther apart"),
    "image_ratio": ("images: between / within", "higher: better apart", "distance between classes divided by distance "
                    "within a class; higher: better separated"),
    "modality_gap": ("gap from images to texts", "", "distance between the mean image and the mean class text"),
}


def measure(images: Tensor, labels: Tensor, texts: Tensor) -> dict[str, float | None]:
    """The numbers that MEASURES explains; None where there are too few classes or images for one.

    Args:
        images: (N, D), unit norm. labels: (N,). texts: (C, D), unit norm.
    """
    spread = uniformity(texts, BANDWIDTH) if len(texts) > 1 else None
    within, between = compactness(images, labels)
    return {"text_uniformity": None if spread is None else float(spread),
            "text_inter_dispersion": None if spread is None else float(spread.exp()),
            "image_within": within, "image_between": between,
            "image_ratio": between / within if within and between is not None else None,
            "modality_gap": float((images.mean(0) - texts.mean(0)).norm())}


def compactness(images: Tensor, labels: Tensor) -> tuple[float | None, float | None]:
    """Mean distance of an image to the mean of its class, and mean distance between two class means.

    A class of one image is its own mean, so it is left out of the first number.

    Args:
        images: (N, D). labels: (N,).
    """
    classes, place, sizes = labels.unique(return_inverse=True, return_counts=True)
    means = torch.zeros(len(classes), images.shape[1]).index_add_(0, place, images) / sizes[:, None]
    several = sizes[place] > 1
    within = float((images - means[place])[several].norm(dim=1).mean()) if several.any() else None
    return within, float(torch.pdist(means).mean()) if len(means) > 1 else None
