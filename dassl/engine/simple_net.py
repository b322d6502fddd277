"""Dassl's default model: a backbone with a linear classifier."""
from __future__ import annotations

from torch import Tensor, nn

from dassl.modeling import build_backbone, build_head


class SimpleNet(nn.Module):
    """A backbone, an optional head, and a linear classifier over `num_classes` (0: none)."""

    def __init__(self, cfg, model_cfg, num_classes: int, **kwargs):
        super().__init__()
        self.backbone = build_backbone(model_cfg.BACKBONE.NAME, verbose=cfg.VERBOSE,
                                       pretrained=model_cfg.BACKBONE.PRETRAINED, **kwargs)
        fdim = self.backbone.out_features
        self.head = None
        if model_cfg.HEAD.NAME and model_cfg.HEAD.HIDDEN_LAYERS:
            h = model_cfg.HEAD
            self.head = build_head(h.NAME, verbose=cfg.VERBOSE, in_features=fdim, hidden_layers=h.HIDDEN_LAYERS,
                                   activation=h.ACTIVATION, bn=h.BN, dropout=h.DROPOUT, **kwargs)
            fdim = self.head.out_features
        self.classifier = nn.Linear(fdim, num_classes) if num_classes > 0 else None
        self._fdim = fdim

    @property
    def fdim(self) -> int:
        return self._fdim

    def forward(self, x: Tensor, return_feature: bool = False):
        """(B, ...) -> scores (B, C), features (B, fdim), or both."""
        f = self.backbone(x)
        f = self.head(f) if self.head is not None else f
        if self.classifier is None:
            return f
        y = self.classifier(f)
        return (y, f) if return_feature else y
