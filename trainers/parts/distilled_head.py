"""A student's features in the space of its teacher, compared with the teacher's classes.

Source: PromptKD (Li et al., CVPR 2024), trainers/promptkd.py Feature_Trans_Module_two_layer and CustomCLIP.
"""
from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from clip import FrozenCLIP, InputError
from trainers.parts.heads import CosineHead


class DistilledHead(CosineHead):
    """Two learned layers from the student's width to the teacher's, and cosines with the teacher's class features.

    The class features are saved with what is learned, so that the teacher is needed for training alone.

    Args:
        text: (C, D_t), unit norm, the teacher's.
    Attributes:
        projector: of features as the tower gives them; batch norm between the layers.
        text: see above.
    """

    knows_classes, unit_norm = True, False

    def __init__(self, clip: FrozenCLIP, text: Tensor):
        super().__init__()
        self.width = clip.embed_dim
        self.register_buffer("text", text)
        self.projector = self.new_projector()
        self.register_load_state_dict_pre_hook(_make_room_for_text)

    def new_projector(self) -> nn.Sequential:
        D, D_t = self.width, self.text.shape[1]
        layers = nn.Conv2d(D, D_t, 1), nn.BatchNorm2d(D_t), nn.ReLU(), nn.Conv2d(D_t, D_t, 1)
        return nn.Sequential(*layers).to(self.text.device).train(self.training)

    def take_text(self, text: Tensor) -> None:
        """Compare with these class features (C, D_t) from now on; another width begins another projector.

        Raises:
            InputError: another number of classes.
        """
        if len(text) != len(self.text):
            raise InputError(f"A teacher of {len(text)} classes cannot teach {len(self.text)}.")
        other, self.text = text.shape[1] != self.text.shape[1], text.to(self.text)
        if other:
            self.projector = self.new_projector()

    def forward(self, image_features: Tensor, text_features: None, clip: FrozenCLIP) -> tuple[Tensor, dict]:
        """(B, D), not normalised -> logits (B, C), and "image_features" (B, D_t) and "text_features" (C, D_t)."""
        projected = F.normalize(self.projector(image_features[..., None, None]).flatten(1), dim=-1)
        return super().forward(projected, self.text, clip), {"image_features": projected, "text_features": self.text}


def _make_room_for_text(head: DistilledHead, state: dict, prefix: str, *_) -> None:
    """The authors' file has no class features; its layers tell the teacher's width."""
    first = state.get(prefix + "projector.0.weight")
    if first is not None and len(first) != head.text.shape[1]:
        head.text = head.text.new_zeros(len(head.text), len(first))
        head.projector = head.new_projector()
    state.setdefault(prefix + "text", head.text)
