"""MODEL.HEAD.NAME -> layers between backbone and classifier."""
from dassl.utils.registry import Registry, builder

HEAD_REGISTRY = Registry("HEAD")
build_head = builder(HEAD_REGISTRY)
