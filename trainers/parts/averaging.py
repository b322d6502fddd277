"""Means of weights: over the epochs of a training, weighted by a Gaussian, and between its start and its end.

Source: PromptSRC (Khattak et al., ICCV 2023), Gaussian weighted prompt aggregation, trainers/promptsrc.py; WiSE-FT
(Wortsman et al., CVPR 2022), src/wise_ft.py.
"""
from __future__ import annotations

import torch
from torch import Tensor, nn

from clip import InputError


class GaussianAverage:
    """Adds up a module's parameters after each epoch; after the last the sum is their weighted mean.

    It is kept in float32, and of what is learned alone: the authors add up their whole half-precision model, whose
    frozen weights come back rounded.

    Args:
        epochs: E, at least 1.
        mean, std: epoch e = 1..E counts in proportion to exp(-((e - mean) / std)^2 / 2); std > 0.
    Attributes:
        weights: (E,) float64, which sum to 1.
        sums: by parameter name, of the epochs that were added; {} before the first.
        added: number of them.
    Raises:
        InputError: a std that is not positive, or no epoch.
    """

    def __init__(self, epochs: int, mean: float, std: float):
        if epochs < 1 or not std > 0:
            raise InputError(f"A Gaussian average needs at least 1 epoch and a positive standard deviation, got "
                             f"{epochs} and {std}.")
        e = torch.arange(1, epochs + 1, dtype=torch.float64)
        self.weights = torch.softmax(-((e - mean) / std) ** 2 / 2, dim=0)
        self.sums, self.added = {}, 0

    @torch.no_grad()
    def add(self, module: nn.Module) -> None:
        """The parameters after the next epoch, in the order of the epochs."""
        weight = float(self.weights[self.added])
        for name, value in _learned(module).items():
            self.sums[name] = self.sums.get(name, 0) + weight * value.float()
        self.added += 1

    @property
    def is_complete(self) -> bool:
        return self.added == len(self.weights)

    @torch.no_grad()
    def load_into(self, module: nn.Module) -> None:
        """Make the sums the module's parameters."""
        for name, value in _learned(module).items():
            value.copy_(self.sums[name])

    def state(self) -> dict:
        return {"sums": dict(self.sums), "added": self.added, "weights": self.weights}

    def load_state(self, state: dict) -> None:
        """Of an average over the same epochs with the same weights.

        Raises:
            InputError: the epochs that were added counted otherwise.
        """
        if not torch.equal(state["weights"].cpu(), self.weights):
            raise InputError(f"An average that was begun over {len(state['weights'])} epochs cannot be continued over "
                             f"{len(self.weights)}, nor with another mean or standard deviation: the epochs that it "
                             "holds would have counted otherwise. Train from scratch.")
        self.sums, self.added = dict(state["sums"]), state["added"]


@torch.no_grad()
def interpolate(module: nn.Module, start: dict[str, Tensor], end: dict[str, Tensor], share: float) -> None:
    """Make the module's parameters (1 - share) * start + share * end, both by the names of these parameters.

    A share above 1 leads beyond the end: with 1 / a, from a mixture of share a back to what was mixed.
    """
    for name, value in module.named_parameters():
        value.copy_((1 - share) * start[name] + share * end[name])


def _learned(module: nn.Module) -> dict[str, Tensor]:
    return {name: p for name, p in module.named_parameters() if p.requires_grad}
