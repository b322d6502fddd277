"""What turns images into features."""
from __future__ import annotations

from torch import nn


class Backbone(nn.Module):
    """Images to features; `out_features` is their width, which a subclass sets as `_out_features`."""

    def __init__(self):
        super().__init__()
        self._out_features: int | None = None

    @property
    def out_features(self) -> int | None:
        return self._out_features
