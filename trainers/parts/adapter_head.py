"""A head that mixes features with what a small network makes of them, on either side, before they are compared.

Source: CLIP-Adapter (Gao et al., IJCV 2024), clip_adapter.py; CoPrompt (Roy and Etemad, ICLR 2024),
trainers/coprompt.py, has one for each tower.
"""
from __future__ import annotations

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn

from clip import FrozenCLIP, InputError
from trainers.parts.heads import CosineHead


class Adapter(nn.Module):
    """x of width D becomes share * fc(x) + (1 - share) * x; fc is two layers without bias, each with a ReLU.

    Args:
        share: of what the network makes, in [0, 1].
        reduction: the layer between has D // reduction numbers. PyTorch's initial weights, from torch's global stream.
    Raises:
        InputError: another share.
    """

    def __init__(self, dim: int, share: float, reduction: int = 4):
        super().__init__()
        if not 0 <= share <= 1:
            raise InputError(f"An adapter's share of the features must be 0 to 1, got {share}.")
        self.share, hidden = share, max(1, dim // reduction)
        self.fc = nn.Sequential(OrderedDict([("0", nn.Linear(dim, hidden, bias=False)), ("1", nn.ReLU()),
                                             ("2", nn.Linear(hidden, dim, bias=False)), ("3", nn.ReLU())]))

    def forward(self, x: Tensor) -> Tensor:
        return self.share * self.fc(x) + (1 - self.share) * x


class AdapterHead(CosineHead):
    """Cosines of adapted features, which are normalised after their adapters.

    Args:
        image_share, text_share: see `Adapter`; 0 has none.
        scale: see `CosineHead`.
    """

    unit_norm = False

    def __init__(self, clip: FrozenCLIP, image_share: float, text_share: float = 0.0, scale: float | None = None):
        super().__init__(scale)
        self.image, self.text = (Adapter(clip.embed_dim, share) if share else nn.Identity()
                                 for share in (image_share, text_share))

    def forward(self, image_features: Tensor, text_features: Tensor, clip: FrozenCLIP) -> tuple[Tensor, dict]:
        """(B, D) and (C, D) as the towers give them -> logits (B, C), and both "features", adapted and unit norm."""
        images, texts = F.normalize(self.image(image_features), dim=-1), F.normalize(self.text(text_features), dim=-1)
        return super().forward(images, texts, clip), {"image_features": images, "text_features": texts}
