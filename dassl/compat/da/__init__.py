"""Trainers of domain adaptation."""
from dassl.compat.left_out import refuse

from .source_only import SourceOnly

__all__ = ["SourceOnly"]

__getattr__ = refuse("dassl.engine.da", ("ADDA", "AdaBN", "CDAC", "DAEL", "DANN", "M3SDA", "MCD", "MME", "SE"), __all__)
