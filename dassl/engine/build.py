"""TRAINER.NAME -> a trainer."""
from dassl.utils.registry import Registry

LATER = {"Vanilla": "dassl.engine.dg.vanilla", "DomainMix": "dassl.engine.dg.domain_mix",
         "CrossGrad": "dassl.engine.dg.crossgrad", "SourceOnly": "dassl.engine.da.source_only",
         "SupBaseline": "dassl.engine.ssl.sup_baseline", "FixMatch": "dassl.engine.ssl.fixmatch"}
TRAINER_REGISTRY = Registry("TRAINER", LATER)


def build_trainer(cfg):
    """The trainer registered as cfg.TRAINER.NAME. Raises UserError with the nearest name for an unknown one."""
    return TRAINER_REGISTRY.get(cfg.TRAINER.NAME)(cfg)
