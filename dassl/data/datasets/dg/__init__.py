"""Datasets of domain generalisation: trained on source domains, tested on others."""
from dassl.compat.left_out import refuse

from ..domains import PACS, VLCS, DigitsDG, DomainNetDG, OfficeHomeDG

__all__ = ["PACS", "VLCS", "DigitsDG", "DomainNetDG", "OfficeHomeDG"]

__getattr__ = refuse(__name__, ("CIFAR10C", "CIFAR100C", "Camelyon17", "DigitSingle", "FMoW", "IWildCam"), __all__)
