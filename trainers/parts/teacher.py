"""The frozen teacher: what the towers say of the classes before anything is learned, and a student's distance.

Source: the mean over templates is CLIP's (Radford et al., ICML 2021), section 3.1.4; the student that stays near is
that of PromptSRC, KgCoOp, TCP, CoPrompt, MMRL and others.
"""
from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from clip import FrozenCLIP, InputError, embed_texts, encode_texts
from trainers.parts.classes import Classes


@torch.no_grad()
def mean_text_features(clip: FrozenCLIP, classes: Classes, templates: Sequence[str] = (), *,
                       normalise_each: bool = True, unit_norm: bool = True, underscores: bool = False) -> Tensor:
    """(C, D): the mean over templates of each class's features.

    Args:
        templates: sentences with one {} for the name; the dataset's own one where there are none.
        normalise_each: whether features are normalised before the mean, as CLIP does; PromptSRC does not.
        unit_norm: whether the mean is normalised; TaskRes and CLAP take it as it is.
        underscores: whether names keep theirs, which become spaces otherwise.
    """
    sums, templates = 0, templates or ("",)
    for i, template in enumerate(tqdm(templates, "Templates through the text tower", delay=2, leave=False,
                                      file=sys.stderr, disable=not sys.stderr.isatty(), dynamic_ncols=True)):
        tokens = embed_texts(clip, classes.sentences(template, underscores), share=True,
                             words=() if i else classes.names)
        sums = sums + clip.encode_text(tokens, unit_norm=normalise_each)
    return F.normalize(sums, dim=-1) if unit_norm else sums / len(templates)


@torch.no_grad()
def context_features(clip: FrozenCLIP, classes: Classes, templates: Sequence[str]) -> Tensor:
    """(K, D), unit norm: what each sentence says apart from the class, its features' mean over classes.

    Source: CAR-FT (Mao et al., IJCV 2024), context prompts.
    """
    each = [encode_texts(clip, classes.sentences(template)).mean(dim=0) for template in templates]
    return F.normalize(torch.stack(each), dim=-1)


def cosine_distance(features: Tensor, teacher: Tensor) -> Tensor:
    """() in [0, 2]: 1 minus the mean cosine between rows (N, D), unit norm, and the teacher's of the same shape."""
    check_teacher(features, teacher)
    return 1 - (features * teacher).sum(dim=-1).mean()


def check_teacher(features: Tensor, teacher: Tensor) -> None:
    """Raises InputError unless both say as many things in the same width."""
    if features.shape != teacher.shape:
        raise InputError(f"A student learns from a teacher of the same classes or images and the same width: features "
                         f"have shape {tuple(features.shape)}, the teacher's {tuple(teacher.shape)}.")
