"""nn.Sequential for modules of several inputs."""
from torch import nn


class Sequential2(nn.Sequential):
    """Each module gets what the one before it returned; the items of a tuple become its arguments."""

    def forward(self, *inputs):
        for module in self:
            inputs = module(*inputs) if isinstance(inputs, tuple) else module(inputs)
        return inputs
