"""Layers and losses of adaptation and generalisation methods, by the names of Dassl 0.6.3."""
from dassl.compat.left_out import refuse

from .layers import DSBN1d, DSBN2d, ReverseGrad, Sequential2, TransNorm1d, TransNorm2d
from .losses import MaximumMeanDiscrepancy, MinibatchEnergyDistance, SinkhornDivergence, cross_entropy, mixup
from .styles import (
    EFDMix,
    MixStyle,
    activate_efdmix,
    activate_mixstyle,
    crossdomain_efdmix,
    crossdomain_mixstyle,
    deactivate_efdmix,
    deactivate_mixstyle,
    random_efdmix,
    random_mixstyle,
    run_with_efdmix,
    run_with_mixstyle,
    run_without_efdmix,
    run_without_mixstyle,
)

__getattr__ = refuse("dassl.modeling.ops", ("Attention", "Conv2dDynamic"),
                     [name for name, thing in dict(globals()).items() if callable(thing) and thing is not refuse])
