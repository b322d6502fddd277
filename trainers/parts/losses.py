"""Losses of prompt-learning papers: functions of feature tensors that return a scalar."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from clip import InputError


def of_several_labels(logits: Tensor, labels: Tensor, each_class: bool) -> Tensor:
    """The loss of images that have one label or more.

    Args:
        logits: (B, C). labels: (B, C) 0 or 1, at least one 1 in each row.
        each_class: whether logits answer for each class by itself, as those of a linear classifier may: binary
            cross-entropies, their mean over images and classes. Otherwise the cross-entropy with equal shares of an
            image's labels: every cosine at CLIP's scale would mean "yes" for each class by itself.
    Returns:
        ().
    Source: ELEVATER's toolkit 6d17a5c, full_model_finetune.py train_task (binary); MVLPT (Shen et al., WACV 2024),
    trainers/mvlpt.py forward_backward (shares), which learns prompts from the same data. Both test with a softmax.
    """
    if each_class:
        return F.binary_cross_entropy_with_logits(logits, labels)
    return F.cross_entropy(logits, labels / labels.sum(dim=1, keepdim=True))


def inter_dispersion(text_features: Tensor, t: float = 2.0) -> Tensor:
    """Mean Gaussian similarity over all pairs of classes; small when classes spread out.

    Args:
        text_features: (C, D), unit norm, C >= 2.
        t: bandwidth; similarity is exp(-t * squared Euclidean distance).
    Returns:
        () in (0, 1].
    Raises:
        InputError: fewer than two classes.
    Source: DAPT (Cho et al., ICCV 2023), inter-dispersion loss; authors' code trainers/dapt.py:389. A plain mean,
    without the logarithm of Wang and Isola's uniformity.
    """
    if len(text_features) < 2:
        raise InputError("The inter-dispersion loss spreads classes apart and needs at least 2, got "
                         f"{len(text_features)}.")
    w, C = text_features.float(), len(text_features)
    norms = w.square().sum(dim=1)                                                   # (C,)
    squared = (norms[:, None] + norms - 2 * w @ w.t()).clamp(min=0)                 # (C, C)
    return squared.mul(-t).exp().triu(diagonal=1).sum() / (C * (C - 1) / 2)         # each pair once


def intra_dispersion(image_features: Tensor, prototypes: Tensor) -> Tensor:
    """Mean squared distance per coordinate between images and the prototypes of their classes.

    Args:
        image_features: (B, D), unit norm.
        prototypes: (B, D), row b belongs to image b; means of unit-norm features, so at most unit norm.
    Returns:
        () in [0, 4 / D].
    Source: DAPT (Cho et al., ICCV 2023), intra-dispersion loss; authors' code trainers/dapt.py:386. `mse_loss` averages
    over B and D, and the published weights are for that.
    """
    return F.mse_loss(image_features.float(), prototypes.float())


def text_to_text(text_features: Tensor, references: Tensor, scale: Tensor) -> Tensor:
    """Cross-entropy of finding, for each reference sentence, the class's learned prompt among those of all classes.

    Args:
        text_features: (C, D), unit norm, of the learned prompts.
        references: (R, C, D), of R fixed sentences of each class.
        scale: () factor on their products.
    Returns:
        () mean over references and classes.
    Source: LASP (Bulat and Tzimiropoulos, CVPR 2023), prompting/lasp.py forward_text_to_text. The soft-max is over the
    learned prompts, not over the references.
    """
    logits = scale * references @ text_features.t()                                 # (R, C references, C learned)
    labels = torch.arange(len(text_features), device=logits.device).repeat(len(references))
    return F.cross_entropy(logits.flatten(0, 1), labels)


def score_variance(image_features: Tensor, text_features: Tensor, labels: Tensor) -> Tensor:
    """How the cosine of each class, less that of the image's own class, varies over prompts; coordinates by themselves.

    Args:
        image_features: (B, D). text_features: (P, C, D). labels: (B,) in [0, C).
    Returns:
        (B, C), at least 0, and 0 at the label.
    Source: ProDA (Lu et al., CVPR 2022), the upper bound of section 3.3: x' (S_yy + S_cc - 2 S_yc) x with covariances
    that are diagonal over coordinates; divided by P + 1 as in the code that trainers/proda.py names.
    """
    x, texts = image_features.float().square(), text_features.float()
    spread = texts - texts.mean(dim=0)                                                  # (P, C, D)
    own = spread[:, labels]                                                             # (P, B, D)
    every = x @ spread.square().sum(dim=0).t()                                          # (B, C)
    shared = torch.einsum("pbd,pcd->bc", own * x, spread)                               # (B, C)
    return (every + every.gather(1, labels[:, None]) - 2 * shared) / (len(texts) + 1)


def similarity_of_pairs(features: Tensor) -> Tensor:
    """() in [0, 1]: mean absolute cosine over all pairs of P unit-norm features (P, D); 0 for a single one.

    Source: ProDA (Lu et al., CVPR 2022), section 3.4, of the prompts' semantic orthogonality.
    """
    P = len(features)
    cosines = (features.float() @ features.float().t()).abs()                       # (P, P)
    return (cosines.sum() - cosines.diagonal().sum()) / max(1, P * (P - 1))


def dispersion(text_features: Tensor) -> Tensor:
    """(..., C, D) -> (...): mean Euclidean distance of the classes' features from their mean.

    Source: C-TPT (Yoon et al., ICLR 2024), average text feature dispersion (ATFD).
    """
    return (text_features - text_features.mean(dim=-2, keepdim=True)).norm(dim=-1).mean(dim=-1)
