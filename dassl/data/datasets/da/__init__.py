"""Datasets of domain adaptation: labelled source images, unlabelled target images."""
from dassl.compat.left_out import refuse

from ..domains import DomainNet, Office31, OfficeHome, VisDA17, miniDomainNet
from . import office_home

__all__ = ["DomainNet", "Office31", "OfficeHome", "VisDA17", "miniDomainNet"]

__getattr__ = refuse(__name__, ("CIFARSTL", "Digit5"), __all__)
