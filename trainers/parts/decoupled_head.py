"""A linear classifier in addition to the cosines, which keeps what is special to the classes that training saw.

Source: DePT (Zhang et al., CVPR 2024), from its description: channel-adjusted transfer in equations 4 to 6.
"""
from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip import FrozenCLIP, InputError
from trainers.parts.heads import CosineHead
from trainers.parts.seen_classes import which_were_seen


class Channels(nn.Module):
    """A learned factor and shift for each channel; the identity at first."""

    def __init__(self, width: int):
        super().__init__()
        self.scale, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.bias


class DecoupledHead(CosineHead):
    """Classes that training saw have logits (1 - weight) * cosine + weight * linear, others the cosine alone.

    Args:
        num_classes: C; a loaded checkpoint brings as many rows as training saw classes.
        weight: of the linear classifier, from 0 to 1.
        seen: for each class whether training saw it; None where nobody says, which is enough for training.
    Attributes:
        image_channels, text_channels: `Channels` of what enters the linear classifier, which are features as the towers
            give them.
        linear: one row for each class that training saw, in their order.
        seen: (C,) bool, or None.
    Raises:
        InputError: a weight outside its range; in evaluation, nobody says which classes were seen, or their number is
            not that of the rows.
    """

    unit_norm = False

    def __init__(self, clip: FrozenCLIP, num_classes: int, weight: float, seen: Sequence[bool] | None):
        super().__init__()
        if not 0 <= weight <= 1:
            raise InputError(f"The linear classifier's weight must be from 0 to 1, got {weight}.")
        self.weight, D = weight, clip.embed_dim
        self.image_channels, self.text_channels = Channels(D), Channels(D)
        self.linear = nn.Linear(D, sum(seen or ()) or num_classes)
        self.register_buffer("seen", None if seen is None else torch.tensor(list(seen)), False)
        self.register_load_state_dict_pre_hook(_make_room_for_rows)

    def forward(self, image_features: Tensor, text_features: Tensor, clip: FrozenCLIP) -> tuple[Tensor, dict]:
        """(B, D) and (C, D), not normalised -> logits (B, C), "cosine" (B, C), and in training "of_images" (B, C) and
        "of_texts" (C, C), the linear classifier's logits of images and of each class's text.
        """
        image, texts = F.normalize(image_features, dim=-1), F.normalize(text_features, dim=-1)
        cosine = super().forward(image, texts, clip)
        of_images = self.linear(self.image_channels(image_features))                              # (B, rows)
        if self.training:
            mixed = (1 - self.weight) * cosine + self.weight * of_images
            return mixed, {"cosine": cosine, "of_images": of_images,
                           "of_texts": self.linear(self.text_channels(text_features))}
        if not (places := which_were_seen(self.seen, len(texts)).nonzero().flatten()).numel():
            return cosine, {"cosine": cosine}
        if len(places) != len(self.linear.weight):
            raise InputError(f"Training saw {len(places)} of these {len(texts)} classes, and the linear classifier "
                             f"knows {len(self.linear.weight)}: it cannot tell which are which.")
        mixed = (1 - self.weight) * cosine[:, places] + self.weight * of_images
        return cosine.index_copy(1, places, mixed), {"cosine": cosine}


def _make_room_for_rows(head: DecoupledHead, state: dict, prefix: str, *_) -> None:
    loaded = state.get(prefix + "linear.weight")
    if loaded is not None and loaded.dim() == 2 and len(loaded) != len(head.linear.weight):
        head.linear = nn.Linear(head.linear.in_features, len(loaded), device=head.linear.weight.device)
