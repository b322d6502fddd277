"""Weights for kernels, chosen by the image. Source: Sun et al., Dynamic Domain Generalization, IJCAI 2022."""
from __future__ import annotations

from torch import Tensor, nn

from dassl.utils.errors import UserError


class Attention(nn.Module):
    """(B, in_channels, H, W) -> (B, out_features), rows sum to 1. `squeeze`: hidden width, else in_channels // 16."""

    def __init__(self, in_channels: int, out_features: int, squeeze: int | None = None, bias: bool = True):
        super().__init__()
        self.squeeze = squeeze or in_channels // 16
        if self.squeeze < 1:
            raise UserError(f"{in_channels} channels are too few for a hidden width of a sixteenth; give squeeze.")
        self.fc1 = nn.Linear(in_channels, self.squeeze, bias=bias)
        self.fc2 = nn.Linear(self.squeeze, out_features, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.fc1(x.mean((2, 3))).relu()).softmax(-1)
