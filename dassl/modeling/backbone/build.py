"""MODEL.BACKBONE.NAME -> a feature extractor: a residual network, or what a project registers."""
import logging

from dassl.utils.registry import Registry

logger = logging.getLogger(__name__)

BACKBONE_REGISTRY = Registry("BACKBONE")


def build_backbone(name: str, verbose: bool = True, **kwargs):
    """`kwargs` go to what is registered under that name, e.g. pretrained=True."""
    if verbose:
        logger.info("Backbone: %s", name)
    return BACKBONE_REGISTRY.get(name)(**kwargs)
