"""A multi-layer perceptron between backbone and classifier."""
from itertools import pairwise

from torch import nn

from dassl.utils.errors import UserError

from .build import HEAD_REGISTRY

_ACTIVATIONS = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU}


class MLP(nn.Module):
    """Linear, batch norm, activation and dropout for every hidden width; `out_features` is the last."""

    def __init__(self, in_features: int = 2048, hidden_layers=(), activation: str = "relu", bn: bool = True,
                 dropout: float = 0.0):
        super().__init__()
        if not hidden_layers:
            raise UserError("MODEL.HEAD.HIDDEN_LAYERS is empty; give an mlp head at least one width.")
        widths, layers = [in_features, *([hidden_layers] if isinstance(hidden_layers, int) else hidden_layers)], []
        for before, after in pairwise(widths):
            layers.append(nn.Linear(before, after))
            layers += [nn.BatchNorm1d(after)] if bn else []
            layers.append(_ACTIVATIONS[activation](inplace=True))
            layers += [nn.Dropout(dropout)] if dropout > 0 else []
        self.mlp, self.out_features = nn.Sequential(*layers), widths[-1]

    def forward(self, x):
        return self.mlp(x)


@HEAD_REGISTRY.register()
def mlp(**kwargs) -> MLP:
    return MLP(**kwargs)
