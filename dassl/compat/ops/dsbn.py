"""Batch normalisation with statistics and weights per domain. Source: Chang et al., CVPR 2019."""
from torch import Tensor, nn

from dassl.utils.errors import UserError


class _DSBN(nn.Module):
    """One normalisation per domain; `select_bn` says which is used, at first that of domain 0."""

    normalisation: type[nn.Module]

    def __init__(self, num_features: int, n_domain: int):
        super().__init__()
        self.bn = nn.ModuleList(self.normalisation(num_features) for _ in range(n_domain))
        self.n_domain, self.domain_idx = n_domain, 0

    def select_bn(self, domain_idx: int = 0) -> None:
        if domain_idx not in range(self.n_domain):
            raise UserError(f"There are domains 0 to {self.n_domain - 1}; got domain_idx={domain_idx}.")
        self.domain_idx = domain_idx

    def forward(self, x: Tensor) -> Tensor:
        return self.bn[self.domain_idx](x)


class DSBN1d(_DSBN):
    """(B, C) -> (B, C)."""

    normalisation = nn.BatchNorm1d


class DSBN2d(_DSBN):
    """(B, C, H, W) -> (B, C, H, W)."""

    normalisation = nn.BatchNorm2d
