"""TEST.EVALUATOR -> an evaluator."""
from dassl.utils.registry import Registry

EVALUATOR_REGISTRY = Registry("EVALUATOR")


def build_evaluator(cfg, name: str = "", **kwargs):
    """The evaluator registered as `name`, by default TEST.EVALUATOR."""
    return EVALUATOR_REGISTRY.get(name or cfg.TEST.EVALUATOR)(cfg, **kwargs)
