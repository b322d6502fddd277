"""Names to whole networks, for methods that need one beside the classifier."""
import logging

from dassl.utils.registry import Registry

logger = logging.getLogger(__name__)

NETWORK_REGISTRY = Registry("NETWORK")


def build_network(name: str, verbose: bool = True, **kwargs):
    """`kwargs` go to what is registered under that name."""
    if verbose:
        logger.info("Network: %s", name)
    return NETWORK_REGISTRY.get(name)(**kwargs)
