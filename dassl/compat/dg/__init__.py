"""Trainers of domain generalisation."""
from dassl.compat.left_out import refuse

from .crossgrad import CrossGrad
from .domain_mix import DomainMix
from .vanilla import Vanilla

__all__ = ["CrossGrad", "DomainMix", "Vanilla"]

__getattr__ = refuse("dassl.engine.dg", ("DAELDG", "DDAIG"), __all__)
