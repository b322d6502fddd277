"""TRAINER.NAME -> a trainer."""
from dassl.utils.registry import Registry

TRAINER_REGISTRY = Registry("TRAINER")


def build_trainer(cfg):
    """The trainer registered as cfg.TRAINER.NAME. Raises UserError with the nearest name for an unknown one."""
    return TRAINER_REGISTRY.get(cfg.TRAINER.NAME)(cfg)
