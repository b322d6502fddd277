"""MODEL.BACKBONE.NAME -> a feature extractor: a residual network, or what a project registers."""
from dassl.utils.registry import Registry, builder

BACKBONE_REGISTRY = Registry("BACKBONE")
build_backbone = builder(BACKBONE_REGISTRY)
