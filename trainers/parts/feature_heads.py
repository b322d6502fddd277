"""Heads that learn on image features alone, which may be kept; see `trainers.parts.heads` for what a head is."""
from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip import FrozenCLIP, InputError
from trainers.parts.heads import CosineHead


class PrototypeHead(CosineHead):
    """Compares images with a vector of each class.

    Args:
        start: (C, D), of any norm.
        measure: "cosine"; "inner", which does not normalise the prototypes; or "euclidean", minus the squared distance
            of features as the tower gives them, neither scaled nor divided by D.
        scale: of the first two, see `CosineHead`.
        learned: whether the prototypes are optimised.
    Attributes:
        prototypes, start: (C, D), now and at first.
    Source: Prototypical Networks (Snell et al., NeurIPS 2017), equation 2; CLAP (Silva-Rodriguez et al., CVPR 2024),
        cosines; Cross-Modal Adaptation (Lin et al., CVPR 2023), inner products.
    """

    knows_classes = True

    def __init__(self, start: Tensor, measure: str = "cosine", scale: float | None = None, learned: bool = True):
        super().__init__(scale)
        if measure not in ("cosine", "inner", "euclidean"):
            raise InputError(f"Prototypes are compared by cosine, inner or euclidean, got {measure!r}.")
        self.measure, self.unit_norm = measure, measure != "euclidean"
        self.prototypes = nn.Parameter(start.clone(), learned)
        self.register_buffer("start", start, persistent=False)

    def forward(self, image_features: Tensor, text_features: None, clip: FrozenCLIP) -> tuple[Tensor, dict]:
        """(B, D) -> (B, C), and the classes' directions."""
        unit = F.normalize(self.prototypes, dim=-1)
        if self.measure == "euclidean":
            logits = -(image_features[:, None] - self.prototypes).square().sum(-1)
        else:
            logits = super().forward(image_features, unit if self.measure == "cosine" else self.prototypes, clip)
        return logits, {"text_features": unit}


class BlendHead(nn.Module):
    """A linear classifier of images plus cosines with texts: W f + b + a_c (t_c . f).

    Attributes:
        weight: (C, D), bias: (C,), zero at first. text_weight: (C,) a.
    Source: LP++ (Huang et al., CVPR 2024), equation 3.
    """

    def __init__(self, clip: FrozenCLIP, num_classes: int, text_weight: float):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(num_classes, clip.embed_dim))
        self.bias = nn.Parameter(torch.zeros(num_classes))
        self.text_weight = nn.Parameter(torch.full((num_classes,), float(text_weight)))

    def forward(self, image_features: Tensor, text_features: Tensor, clip: FrozenCLIP) -> Tensor:
        """(B, D) and (C, D) -> (B, C)."""
        cosines = image_features @ text_features.t()
        return F.linear(image_features, self.weight, self.bias) + self.text_weight * cosines


class AdapterHead(CosineHead):
    """Cosines of features that two layers change: r A(f) + (1 - r) f, of features as the tower gives them.

    Args:
        ratio: r, in [0, 1].
        reduction: D over the width of the hidden layer.
    Attributes:
        down: (D / reduction, D), up: (D, D / reduction), uniform in +-1/sqrt(columns) at first, drawn from torch's
            global stream. No biases; ReLU after both.
    Source: CLIP-Adapter (Gao et al., IJCV 2024), authors' code clip_adapter.py.
    """

    unit_norm = False

    def __init__(self, dim: int, ratio: float = 0.2, reduction: int = 4):
        super().__init__()
        if not 0 <= ratio <= 1 or not 1 <= reduction <= dim:
            raise InputError(f"An adapter needs a ratio in [0, 1] and a reduction of 1 to {dim}, got {ratio} and "
                             f"{reduction}.")
        self.ratio, hidden = ratio, dim // reduction
        self.down, self.up = (nn.Parameter(torch.empty(shape).uniform_(-1, 1) / math.sqrt(shape[1]))
                              for shape in ((hidden, dim), (dim, hidden)))

    def forward(self, image_features: Tensor, text_features: Tensor, clip: FrozenCLIP) -> tuple[Tensor, dict]:
        """(B, D) and unit-norm (C, D) -> (B, C), and the changed features."""
        changed = F.relu(F.linear(F.relu(F.linear(image_features, self.down)), self.up))
        image_features = F.normalize(self.ratio * changed + (1 - self.ratio) * image_features, dim=-1)
        return super().forward(image_features, text_features, clip), {"image_features": image_features}


class ProjectionHead(CosineHead):
    """Cosines behind a projection of its own into the joint space, at first that of the image tower.

    Attributes:
        weight: (W, D). start: the tower's.
    Raises:
        InputError: the tower is not a vision transformer.
    Source: ProLIP (Fahes et al., arXiv 2410.05270), authors' code methods/ProLIP.py.
    """

    unit_norm, joint = False, False

    def __init__(self, clip: FrozenCLIP, scale: float | None = None):
        super().__init__(scale)
        clip.require_tokens("A projection of its own")
        self.weight = nn.Parameter(clip.visual.proj.detach().clone())
        self.register_buffer("start", clip.visual.proj.detach().clone(), persistent=False)

    def forward(self, image_features: Tensor, text_features: Tensor, clip: FrozenCLIP) -> tuple[Tensor, dict]:
        """(B, W) and unit-norm (C, D) -> (B, C), and the projected features (B, D)."""
        projected = F.normalize(image_features @ self.weight, dim=-1)
        return super().forward(projected, text_features, clip), {"image_features": projected}
