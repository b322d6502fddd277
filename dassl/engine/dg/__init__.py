"""Trainers of domain generalisation."""
from dassl.utils.left_out import refuse

from .crossgrad import CrossGrad
from .domain_mix import DomainMix
from .vanilla import Vanilla

__all__ = ["CrossGrad", "DomainMix", "Vanilla"]

__getattr__ = refuse(__name__, ("DAELDG", "DDAIG"), __all__)
