"""MODEL.BACKBONE.NAME -> a feature extractor. There is no model zoo here; projects register their own."""
from torch import nn

from dassl.utils.registry import Registry

BACKBONE_REGISTRY = Registry("BACKBONE")


class Backbone(nn.Module):
    """Images to features; `out_features` is their width."""

    def __init__(self):
        super().__init__()
        self._out_features: int | None = None

    @property
    def out_features(self) -> int | None:
        return self._out_features


def build_backbone(name: str, verbose: bool = True, **kwargs):
    return BACKBONE_REGISTRY.get(name)(**kwargs)
