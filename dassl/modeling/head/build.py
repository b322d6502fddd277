"""MODEL.HEAD.NAME -> layers between backbone and classifier."""
import logging

from dassl.utils.registry import Registry

logger = logging.getLogger(__name__)

HEAD_REGISTRY = Registry("HEAD")


def build_head(name: str, verbose: bool = True, **kwargs):
    """`kwargs` go to what is registered under that name, e.g. in_features=512."""
    if verbose:
        logger.info("Head: %s", name)
    return HEAD_REGISTRY.get(name)(**kwargs)
