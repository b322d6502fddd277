"""Heads: from features to logits.

A head is called with image features, text features and the towers (for their scale), in float32, see
`trainers.parts.prompted_model.Output` for shapes; it returns logits (B, C), or logits and a dict of what else it found;
"image_features" and "text_features" in it take the place of those of the towers.
It may say `knows_classes` (it needs no text features), `unit_norm = False` (it takes features as the towers give them)
and `joint = False` (image features before the projection), `each_class` (a logit answers for its class by itself, see
`trainers.parts.losses.of_several_labels`). Those that learn or keep something save it with the prompts.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip import FrozenCLIP, InputError
from trainers.parts.prototypes import checked


class CosineHead(nn.Module):
    """Cosines times a scale: the classifier of CLIP.

    Args:
        scale: a constant in place of CLIP's own factor, for methods that fix it.
    """

    def __init__(self, scale: float | None = None):
        super().__init__()
        self.scale = scale

    def forward(self, image_features: Tensor, text_features: Tensor, clip: FrozenCLIP) -> Tensor:
        """(B, D) and (C, D), or texts of each image (B, C, D), -> (B, C)."""
        scale = clip.scale if self.scale is None else self.scale
        if text_features.dim() == 3:
            return scale * (text_features @ image_features.unsqueeze(2)).squeeze(2) + clip.bias
        return scale * image_features @ text_features.t() + clip.bias


class MeanHead(CosineHead):
    """Cosines times the scale with the mean of several prompts' unit-norm features, itself not of unit norm (ProDA)."""

    def forward(self, image_features: Tensor, text_features: Tensor, clip: FrozenCLIP) -> Tensor:
        """(B, D) and (P, C, D) -> (B, C)."""
        return super().forward(image_features, text_features.mean(dim=0), clip)


class LinearHead(nn.Module):
    """Scores W f + b of image features f as the tower gives them; zero at first.

    Args:
        joint: features after the projection into the joint space, else before it.
    """

    knows_classes, unit_norm, each_class = True, False, True

    def __init__(self, clip: FrozenCLIP, num_classes: int, joint: bool = True):
        super().__init__()
        if not joint:
            clip.require_tokens("A linear classifier before the projection")
        self.joint, width = joint, clip.embed_dim if joint else clip.vision_width
        self.weight = nn.Parameter(torch.zeros(num_classes, width, device=clip.logit_scale.device))
        self.bias = nn.Parameter(torch.zeros(num_classes, device=clip.logit_scale.device))

    def forward(self, image_features: Tensor, text_features: None, clip: FrozenCLIP) -> Tensor:
        """(B, D) -> (B, C)."""
        return F.linear(image_features, self.weight, self.bias)


class ZeroShotHead(LinearHead):
    """Scores W f + b of unit-norm features f, where W is at first the classes' texts times CLIP's scale, and b is 0.

    Args:
        text_features: (C, D), unit norm.
    Source: WiSE-FT (Wortsman et al., CVPR 2022), src/models/zeroshot.py and modeling.py ClassificationHead.
    """

    unit_norm, each_class = True, False

    def __init__(self, clip: FrozenCLIP, text_features: Tensor):
        super().__init__(clip, len(text_features))
        with torch.no_grad():
            self.weight.copy_(clip.scale * text_features)


class EnsembleHead(CosineHead):
    """Cosines with the mean over sentences of each class's features, normalised again.

    Args:
        num_sentences: P, of each class.
    Source: CLIP (Radford et al., ICML 2021), section 3.1.4.
    """

    def __init__(self, num_sentences: int):
        super().__init__()
        self.num_sentences = num_sentences

    def forward(self, image_features: Tensor, text_features: Tensor, clip: FrozenCLIP) -> tuple[Tensor, dict]:
        """(B, D) and (P * C, D), sentence by sentence -> (B, C), and the means (C, D)."""
        means = F.normalize(text_features.unflatten(0, (self.num_sentences, -1)).mean(dim=0), dim=-1)
        return super().forward(image_features, means, clip), {"text_features": means}


class ResidualHead(CosineHead):
    """Cosines with the classes' text features plus a learned residual, which is zero at first.

    Args:
        base: (C, D) text features as the tower gives them, to which the residual is added.
        alpha: factor on the residual.
    Attributes:
        residual: (C, D).
    Source: TaskRes (Yu et al., CVPR 2023), trainers/taskres.py: (t + alpha * x), then normalised.
    """

    knows_classes = True

    def __init__(self, base: Tensor, alpha: float = 0.5, scale: float | None = None):
        super().__init__(scale)
        self.register_buffer("base", base, persistent=False)
        self.alpha, self.residual = alpha, nn.Parameter(torch.zeros_like(base))

    def forward(self, image_features: Tensor, text_features: None, clip: FrozenCLIP) -> tuple[Tensor, dict]:
        """(B, D) -> (B, C), and the classes' features."""
        classes = F.normalize(self.base + self.alpha * self.residual, dim=-1)
        return super().forward(image_features, classes, clip), {"text_features": classes}


class ShiftedHead(CosineHead):
    """Cosines with text features that are moved by one learned vector, the same for all classes; zero at first.

    Text features may also be there for classes without images: they follow those of the C classes.

    Args:
        num_classes: C.
        with_others: in training, logits of the classes without images too.
    Attributes:
        w: (1, D).
    Source: LASP (Bulat and Tzimiropoulos, CVPR 2023), prompting/lasp.py: added before the normalisation.
    """

    unit_norm = False

    def __init__(self, clip: FrozenCLIP, num_classes: int, with_others: bool = False):
        super().__init__()
        self.num_classes, self.with_others = num_classes, with_others
        self.w = nn.Parameter(torch.zeros(1, clip.embed_dim, device=clip.logit_scale.device))

    def forward(self, image_features: Tensor, text_features: Tensor, clip: FrozenCLIP) -> tuple[Tensor, dict]:
        """(B, D) and (C + others, D) -> logits (B, C), or (B, C + others), and "all_texts" (C + others, D), moved."""
        texts = F.normalize(text_features + self.w, dim=-1)
        own = texts[:self.num_classes]
        compared = texts if self.training and self.with_others else own
        logits = super().forward(F.normalize(image_features, dim=-1), compared, clip)
        return logits, {"text_features": own, "all_texts": texts}


class CacheHead(CosineHead):
    """Cosines with texts, plus votes of labelled images weighted by how near they are.

    Empty until it is filled or loaded: then it has no votes.

    Args:
        alpha: weight of the votes. beta: how fast they fall with the distance; both at least 0.
        learned: whether the keys are optimised.
        scale: see `CosineHead`.
    Attributes:
        keys: (K, D) unit-norm features of the cache. values: (K, C), one-hot labels.
    Source: Tip-Adapter (Zhang et al., ECCV 2022), equation 5: alpha * exp(-beta (1 - f.K)) V.
    """

    def __init__(self, clip: FrozenCLIP, num_classes: int, alpha: float = 1.0, beta: float = 1.0,
                 learned: bool = False, scale: float | None = None):
        super().__init__(scale)
        device = clip.logit_scale.device
        self.keys = nn.Parameter(torch.zeros(0, clip.embed_dim, device=device), requires_grad=learned)
        self.register_buffer("values", torch.zeros(0, num_classes, device=device))
        self.register_buffer("alpha", torch.tensor(float(alpha), device=device))
        self.register_buffer("beta", torch.tensor(float(beta), device=device))
        self.register_load_state_dict_pre_hook(_make_room_for_keys)

    @torch.no_grad()
    def fill(self, keys: Tensor, labels: Tensor) -> None:
        """Keep these keys (K, D) and labels (K,) in [0, C); an optimiser keeps its hold on as many former keys.

        Raises:
            InputError: keys of another width, or a class without a key.
        """
        C = self.values.shape[1]
        if keys.shape != (len(labels), self.keys.shape[1]):
            raise InputError(f"A cache needs K keys of width {self.keys.shape[1]} and their K labels, got "
                             f"{tuple(keys.shape)} and {tuple(labels.shape)}.")
        checked(torch.bincount(labels, minlength=C), "A cache")
        self.make_room(len(keys))
        self.keys.copy_(keys)
        self.values.copy_(F.one_hot(labels, C))

    def make_room(self, size: int) -> None:
        """For so many keys, all zero; nothing happens where there are as many."""
        if len(self.keys) != size:
            self.keys = nn.Parameter(self.keys.new_zeros(size, self.keys.shape[1]), self.keys.requires_grad)
            self.values = self.values.new_zeros(size, self.values.shape[1])

    def learned(self) -> list[nn.Parameter]:
        """What is optimised."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def cosines(self, image_features: Tensor, text_features: Tensor, clip: FrozenCLIP) -> Tensor:
        """(B, D) and (C, D) -> (B, C), without the votes."""
        return super().forward(image_features, text_features, clip)

    def votes(self, image_features: Tensor, beta: float | Tensor) -> Tensor:
        """(B, D) -> (B, C)."""
        affinity = image_features @ self.keys.t()                                 # (B, K)
        return torch.exp(-beta * (1 - affinity)) @ self.values

    def forward(self, image_features: Tensor, text_features: Tensor, clip: FrozenCLIP) -> Tensor:
        """(B, D) and (C, D) -> (B, C)."""
        cosines = self.cosines(image_features, text_features, clip)
        return cosines + self.alpha * self.votes(image_features, self.beta)


def _make_room_for_keys(head: CacheHead, state: dict, prefix: str, *_) -> None:
    if prefix + "keys" in state:
        head.make_room(len(state[prefix + "keys"]))


class NormalisingHead(CosineHead):
    """Cosines of features that come as the towers give them, for bricks that need their length."""

    unit_norm = False

    def forward(self, image_features: Tensor, text_features: Tensor, clip: FrozenCLIP) -> Tensor:
        """(B, D) and (C, D), or texts of each image (B, C, D), -> (B, C)."""
        return super().forward(F.normalize(image_features, dim=-1), F.normalize(text_features, dim=-1), clip)


class EmbeddingHead(NormalisingHead):
    """The same, which also gives the image features as they came: "embeddings" (B, D)."""

    def forward(self, image_features: Tensor, text_features: Tensor, clip: FrozenCLIP) -> tuple[Tensor, dict]:
        """(B, D) and (C, D) -> (B, C), and the embeddings."""
        return super().forward(image_features, text_features, clip), {"embeddings": image_features}
