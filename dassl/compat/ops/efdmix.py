"""EFDMix: whole distributions of feature maps mixed between images. Source: Zhang et al., CVPR 2022, eq. 7."""
from torch import Tensor

from ._style import StyleMixer, runners, switches


class EFDMix(StyleMixer):
    """Moves each value of a channel towards the partner's value of the same rank, through which no gradient flows."""

    def mixed(self, x: Tensor, share: Tensor, partners: Tensor) -> Tensor:
        values = x.flatten(2)                                                           # (B, C, H*W)
        in_order, order = values.sort(-1)
        matched = in_order[partners].gather(-1, order.argsort(-1))                      # (B, C, H*W)
        return (values + (matched - values).detach() * (1 - share[..., 0])).view_as(x)


activate_efdmix, deactivate_efdmix, random_efdmix, crossdomain_efdmix = _switches = switches(EFDMix)
run_with_efdmix, run_without_efdmix = runners(*_switches)
