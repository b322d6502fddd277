"""A head that is the texts' cosines first and a classifier of its own afterwards.

Source: 2SFS (Farina et al., CVPR 2025), rethinking_fewshot_vlms 64ac143.
"""
from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip import FrozenCLIP, InputError
from trainers.parts.heads import CosineHead
from trainers.parts.seen_classes import which_were_seen


class StagedHead(CosineHead):
    """Cosines with the classes' texts, until `start` puts a learned vector in the place of each class's text.

    Afterwards the classes that training saw are scored by these vectors, others by their texts.

    Args:
        num_classes: C; a loaded checkpoint brings as many rows as training saw classes.
        seen: for each class whether training saw it; None where nobody says, which is enough for training.
    Attributes:
        classifier: (C, D), compared by its direction. second: whether training is in the second stage.
        started: () bool, saved with the classifier. seen: (C,) bool, or None.
    Raises:
        InputError: in evaluation, nobody says which classes were seen, or their number is not that of the rows.
    """

    def __init__(self, clip: FrozenCLIP, num_classes: int, seen: Sequence[bool] | None):
        super().__init__()
        self.second, device = False, clip.logit_scale.device
        rows = sum(seen or ()) or num_classes
        self.classifier = nn.Parameter(torch.zeros(rows, clip.embed_dim, device=device))
        self.register_buffer("started", torch.zeros((), dtype=torch.bool, device=device))
        self.register_buffer("seen", None if seen is None else torch.tensor(list(seen), device=device), False)
        self.register_load_state_dict_pre_hook(_make_room_for_rows)

    @torch.no_grad()
    def start(self, text_features: Tensor) -> None:
        """Begin the second stage with these texts (C, D)."""
        self.classifier.copy_(text_features)
        self.started.fill_(True)

    def forward(self, image_features: Tensor, text_features: Tensor, clip: FrozenCLIP) -> Tensor:
        """(B, D) and (C, D), unit norm -> (B, C)."""
        if self.training:
            classes = F.normalize(self.classifier, dim=-1) if self.second else text_features
            return super().forward(image_features, classes, clip)
        cosines, seen = super().forward(image_features, text_features, clip), which_were_seen(self.seen,
                                                                                              len(text_features))
        places = seen.nonzero().flatten()
        if not len(places) or not self.started:
            return cosines
        if len(places) != len(self.classifier):
            raise InputError(f"Training saw {len(places)} of these {len(seen)} classes, and the classifier knows "
                             f"{len(self.classifier)}: it cannot tell which are which.")
        own = super().forward(image_features, F.normalize(self.classifier, dim=-1), clip)
        return cosines.index_copy(1, places, own)


def _make_room_for_rows(head: StagedHead, state: dict, prefix: str, *_) -> None:
    loaded = state.get(prefix + "classifier")
    if loaded is not None and loaded.dim() == 2 and len(loaded) != len(head.classifier):
        head.classifier = nn.Parameter(torch.zeros_like(loaded, device=head.classifier.device))
