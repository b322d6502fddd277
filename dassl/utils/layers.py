"""Initial weights, and layers that keep their statistics."""
from __future__ import annotations

from torch import nn

from .errors import UserError

_DRAWS = {
    "normal": lambda weight, gain: nn.init.normal_(weight, 0.0, gain),
    "xavier": lambda weight, gain: nn.init.xavier_normal_(weight, gain=gain),
    "kaiming": lambda weight, gain: nn.init.kaiming_normal_(weight, a=0, mode="fan_in"),
    "orthogonal": lambda weight, gain: nn.init.orthogonal_(weight, gain=gain),
}


def init_network_weights(model: nn.Module, init_type: str = "normal", gain: float = 0.02) -> None:
    """Redraw the weights of convolutions and linear layers; biases become 0, normalisations the identity.

    Args:
        init_type: "normal" (deviation `gain`), "xavier", "kaiming" or "orthogonal".
    """
    if init_type not in _DRAWS:
        raise UserError(f"init_type must be one of {', '.join(_DRAWS)}, got {init_type!r}.")
    for module in model.modules():
        kind = type(module).__name__
        if ("Conv" in kind or "Linear" in kind) and getattr(module, "weight", None) is not None:
            _DRAWS[init_type](module.weight, gain)
            if getattr(module, "bias", None) is not None:
                nn.init.zeros_(module.bias)
        elif ("BatchNorm" in kind or "InstanceNorm" in kind) and module.weight is not None:
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)


def set_bn_to_eval(m: nn.Module) -> None:
    """For `model.apply`: batch normalisations keep their running statistics; scale and shift may still learn."""
    if "BatchNorm" in type(m).__name__:
        m.eval()
