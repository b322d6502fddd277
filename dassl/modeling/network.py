"""Names to whole networks, for methods that need one beside the classifier."""
from dassl.utils.registry import Registry

NETWORK_REGISTRY = Registry("NETWORK")


def build_network(name: str, verbose: bool = True, **kwargs):
    return NETWORK_REGISTRY.get(name)(**kwargs)
