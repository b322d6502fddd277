"""TRAINER.NAME -> a trainer."""
from dassl.config import complete, get_cfg_default
from dassl.utils.registry import Registry

LATER = {"Vanilla": "dassl.compat.dg.vanilla", "DomainMix": "dassl.compat.dg.domain_mix",
         "CrossGrad": "dassl.compat.dg.crossgrad", "SourceOnly": "dassl.compat.da.source_only",
         "SupBaseline": "dassl.compat.ssl.sup_baseline", "FixMatch": "dassl.compat.ssl.fixmatch"}
TRAINER_REGISTRY = Registry("TRAINER", LATER)


def build_trainer(cfg):
    """The trainer registered as cfg.TRAINER.NAME. Raises UserError with the nearest name for an unknown one.

    Keys of the engine that the config lacks get their defaults, in place: a train.py may have a copy of Dassl's.
    """
    default = get_cfg_default()
    default.pop("TRAINER")                      # its sections belong to trainers
    complete(cfg, default)
    return TRAINER_REGISTRY.get(cfg.TRAINER.NAME)(cfg)
