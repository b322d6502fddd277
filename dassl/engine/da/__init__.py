"""Trainers of domain adaptation."""
from dassl.utils.left_out import refuse

from .source_only import SourceOnly

__all__ = ["SourceOnly"]

__getattr__ = refuse(__name__, ("ADDA", "AdaBN", "CDAC", "DAEL", "DANN", "M3SDA", "MCD", "MME", "SE"), __all__)
