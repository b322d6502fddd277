"""Names to whole networks, for methods that need one besides the classifier."""
from dassl.utils.registry import Registry, builder

NETWORK_REGISTRY = Registry("NETWORK")
build_network = builder(NETWORK_REGISTRY)
