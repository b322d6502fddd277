"""Trainers of semi-supervised learning."""
from dassl.compat.left_out import refuse

from .fixmatch import FixMatch
from .sup_baseline import SupBaseline

__all__ = ["FixMatch", "SupBaseline"]

__getattr__ = refuse("dassl.engine.ssl", ("EntMin", "MeanTeacher", "MixMatch"), __all__)
