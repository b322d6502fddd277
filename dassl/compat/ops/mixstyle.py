"""MixStyle: means and deviations of feature maps mixed between images. Source: Zhou et al., ICLR 2021, eqs. 4 to 6."""
from torch import Tensor

from ._style import StyleMixer, runners, switches


class MixStyle(StyleMixer):
    """Mixes each channel's mean and deviation, through which no gradient flows."""

    def mixed(self, x: Tensor, share: Tensor, partners: Tensor) -> Tensor:
        mean = x.mean((2, 3), keepdim=True).detach()                                    # (B, C, 1, 1)
        deviation = (x.var((2, 3), keepdim=True) + self.eps).sqrt().detach()            # (B, C, 1, 1)
        mixed_mean, mixed_deviation = (s * share + s[partners] * (1 - share) for s in (mean, deviation))
        return (x - mean) / deviation * mixed_deviation + mixed_mean


activate_mixstyle, deactivate_mixstyle, random_mixstyle, crossdomain_mixstyle = _switches = switches(MixStyle)
run_with_mixstyle, run_without_mixstyle = runners(*_switches)
