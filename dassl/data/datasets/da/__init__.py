"""Datasets of domain adaptation: labelled source images, unlabelled target images."""
from dassl.compat.left_out import refuse

from .domainnet import DomainNet
from .mini_domainnet import miniDomainNet
from .office31 import Office31
from .office_home import OfficeHome
from .visda17 import VisDA17

__all__ = ["DomainNet", "Office31", "OfficeHome", "VisDA17", "miniDomainNet"]

__getattr__ = refuse(__name__, ("CIFARSTL", "Digit5"), __all__)
