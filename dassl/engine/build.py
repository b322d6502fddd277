"""TRAINER.NAME -> a trainer."""
from dassl.utils.registry import Registry

LATER = {"Vanilla": "dassl.compat.dg.vanilla", "DomainMix": "dassl.compat.dg.domain_mix",
         "CrossGrad": "dassl.compat.dg.crossgrad", "SourceOnly": "dassl.compat.da.source_only",
         "SupBaseline": "dassl.compat.ssl.sup_baseline", "FixMatch": "dassl.compat.ssl.fixmatch"}
TRAINER_REGISTRY = Registry("TRAINER", LATER)


def build_trainer(cfg):
    """The trainer registered as cfg.TRAINER.NAME. Raises UserError with the nearest name for an unknown one."""
    return TRAINER_REGISTRY.get(cfg.TRAINER.NAME)(cfg)
