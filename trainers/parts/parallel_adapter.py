"""Small bottlenecks parallel to the upper blocks of both towers, whose middle layer the towers share.

Source: MMA (Yang et al., CVPR 2024), clip/model.py and trainers/mmadapter.py.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip import FrozenCLIP, InputError


class ParallelAdapter(nn.Module):
    """A tuner of one tower: adds scale * up(relu(shared(relu(down(ln_1(x)))))) to what leaves a block for x.

    What learns in it gets the gradient of scale 1; what lies below gets that of the forward pass. The embeddings are
    level 0, without `ln_1` and with plain gradients: what enters the image tower's first block, and the words before
    their positions, which `embed` gives to the brick that makes the text.

    Args:
        clip: its image tower must be a vision transformer.
        first, last: adapted levels of each tower: 0 the embeddings, 1 the first block.
        dim: width of the bottleneck.
        scale: factor on what is added.
        beside: the other tower's adapter, whose middle layers serve this tower too; None: this is the image tower's.
    Attributes:
        down, up: a layer for each adapted level. shared: the same; the image tower's adapter alone has them. Weights
            are drawn from N(0, 2 / output width) with torch's global stream, biases are zero.
    Raises:
        InputError: an image tower without tokens, blocks that one of the towers does not have, an empty bottleneck.
    """

    def __init__(self, clip: FrozenCLIP, first: int, last: int, dim: int, scale: float,
                 beside: ParallelAdapter | None = None):
        super().__init__()
        clip.require_tokens("An adapter parallel to the blocks of both towers")
        deepest = min(clip.depth, clip.text_depth)
        if not 0 <= first <= last <= deepest:
            raise InputError(f"Adapters can be on the embeddings (0) and on blocks 1 to {deepest} of both towers, "
                             f"the first one first, got {first} to {last}.")
        if dim < 1:
            raise InputError(f"An adapter's bottleneck must be at least 1 wide, got {dim}.")
        tower, W = (clip.visual, clip.vision_width) if beside is None else (clip, clip.text_width)
        self.first, self.scale = first, scale
        self._blocks, self._beside = (tower.transformer.resblocks,), (beside,)          # in tuples, so not parts of it
        layers = {"down": (W, dim), "up": (dim, W), **({"shared": (dim, dim)} if beside is None else {})}
        for name, (into, out) in layers.items():
            self.add_module(name, nn.ModuleList(_layer(into, out, clip.logit_scale.device)
                                                for _ in range(first, last + 1)))

    def enter(self, block: int, x: Tensor) -> Tensor:
        """See `clip.tuning.Tuner`."""
        return self.embed(x) if block == 0 and self._beside[0] is None else x

    def embed(self, x: Tensor) -> Tensor:
        """(..., W) embeddings with what level 0 adds to them, if it is adapted."""
        return x if self.first else x + (self.scale * self._bottleneck(0, x)).to(x.dtype)

    def leave(self, block: int, x: Tensor, y: Tensor) -> Tensor:
        """See `clip.tuning.Tuner`."""
        i = block + 1 - self.first
        if not 0 <= i < len(self.down):
            return y
        normed = _ScaleGradient.apply(self._blocks[0][block].ln_1(x), self.scale)
        return y + _ScaleValue.apply(self._bottleneck(i, normed), self.scale).to(y.dtype)

    def _bottleneck(self, i: int, x: Tensor) -> Tensor:
        shared = (self._beside[0] or self).shared[i]
        return self.up[i](F.relu(shared(F.relu(self.down[i](x)))))


class _ScaleValue(torch.autograd.Function):
    """Times a factor, which the gradient does not see."""

    @staticmethod
    def forward(ctx, x: Tensor, factor: float) -> Tensor:
        return factor * x

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return gradient, None


class _ScaleGradient(torch.autograd.Function):
    """The same values; their gradient times a factor."""

    @staticmethod
    def forward(ctx, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return ctx.factor * gradient, None


def _layer(into: int, out: int, device: torch.device) -> nn.Linear:
    layer = nn.Linear(into, out, device=device)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    nn.init.zeros_(layer.bias)
    return layer
