"""Trainers of semi-supervised learning."""
from dassl.utils.left_out import refuse

from .fixmatch import FixMatch
from .sup_baseline import SupBaseline

__all__ = ["FixMatch", "SupBaseline"]

__getattr__ = refuse(__name__, ("EntMin", "MeanTeacher", "MixMatch"), __all__)
