"""Prompts, low-rank updates and adapters of the image tower's blocks, each of a dimension of its own, or none.

Source: NOAH (Zhang et al., TPAMI 2024), ZhangYuanhan-AI/NOAH e9c55f3, model/supernet_vision_transformer_timm.py and
model/module/adapter_super.py.
"""
from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip import FrozenCLIP, InputError
from trainers.parts.visual_prompt import MOST_TOKENS

PARTS = ("prompt", "lora", "adapter")
Dims = list[list[int]]                  # of prompts, low-rank updates and adapters: one number for each block


class BlockParts(nn.Module):
    """A tuner of the image tower. Of what a block could have at most, `choose` takes the first so many rows.

    Prompts stand behind all other tokens and replace those of the block before. As in the authors' code, a block
    without prompts of its own keeps those that are there, and the next block with some adds its own to them. Updates of
    q, k and v together are not scaled. An adapter follows the MLP, within its branch, with a connection around
    itself.

    Args:
        most: for each of PARTS what every block has at most: one number, or one for each block; 0 is none.
        dropout: of prompts, of what updates read and of what is between an adapter's layers, in training.
        drop_path: probability that an image passes by the last block's attention, and by its MLP, in training; 0 in the
            first block, rising evenly (stochastic depth, Huang et al., ECCV 2016).
    Attributes:
        dims: what is chosen; all of it at first. chosen: (3, depth) int64, the same for a checkpoint.
        prompts: {block: (n, W)}, drawn from U(-v, v), v = sqrt(6 / (3 * patch_size^2 + W)). A: {block: (r, W)}, uniform
            in +-1/sqrt(W). B: {block: (3W, r)}, zero. down: {block: Linear(W, d)}, N(0, 0.02). up: {block: Linear(d,
            W)}, zero. Drawn with torch's global stream.
    Raises:
        InputError: an image tower without tokens; dimensions that no block can have; a dropout that keeps nothing.
    """

    def __init__(self, clip: FrozenCLIP, most: Sequence[int | Sequence[int]], dropout: float = 0.0,
                 drop_path: float = 0.0):
        super().__init__()
        clip.require_tokens("A part in the blocks")
        if not 0 <= drop_path < 1:
            raise InputError(f"The drop of paths must be at least 0 and below 1, got {drop_path}.")
        self.drop_paths = [drop_path * block / max(clip.depth - 1, 1) for block in range(clip.depth)]
        if not 0 <= dropout < 1:
            raise InputError(f"Dropout must be at least 0 and below 1, got {dropout}.")
        self.dropout = nn.Dropout(dropout)
        W, device, self.width = clip.vision_width, clip.logit_scale.device, clip.vision_width
        self.most = per_block(most, clip.depth, W)
        bound = math.sqrt(6 / (3 * clip.patch_size ** 2 + W))

        def each(part: str, make) -> dict:
            return {str(block): make(n).to(device) for block, n in enumerate(self.most[PARTS.index(part)]) if n}

        self.prompts = nn.ParameterDict(each("prompt", lambda n: torch.empty(n, W).uniform_(-bound, bound)))
        self.A = nn.ParameterDict(each("lora", lambda r: torch.empty(r, W).uniform_(-1, 1) / math.sqrt(W)))
        self.B = nn.ParameterDict(each("lora", lambda r: torch.zeros(3 * W, r)))
        self.down = nn.ModuleDict(each("adapter", lambda d: _linear(W, d, 0.02)))
        self.up = nn.ModuleDict(each("adapter", lambda d: _linear(d, W, 0.0)))
        self.register_buffer("chosen", torch.zeros(3, clip.depth, dtype=torch.int64, device=device))
        self.register_load_state_dict_post_hook(lambda module, _: module.choose(module.chosen.tolist()))
        self.choose(self.most)

    def choose(self, dims: Dims) -> None:
        """Take so many rows of each part in each block, at most those that there are."""
        self.dims = [[min(n, most) for n, most in zip(*pair, strict=True)]
                     for pair in zip(dims, self.most, strict=True)]
        self.chosen.copy_(torch.tensor(self.dims))

    def in_use(self) -> list[nn.Parameter]:
        """The parameters of which some rows are chosen."""
        found = {"prompt": (self.prompts,), "lora": (self.A, self.B), "adapter": (self.down, self.up)}
        layers = [kind[str(block)] for part, row in zip(PARTS, self.dims, strict=True) for block, n in enumerate(row)
                  if n for kind in found[part]]
        return [p for layer in layers for p in (layer.parameters() if isinstance(layer, nn.Module) else (layer,))]

    def count(self) -> int:
        """Numbers that are learned, of what is chosen."""
        return parameters_of(self.dims, self.width)

    def enter(self, block: int, x: Tensor) -> Tensor:
        """See `clip.tuning.Tuner`."""
        if block < 0 or not (n := self.dims[0][block]):
            return x
        former = self.dims[0][block - 1] if block else 0
        tokens = self.prompts[str(block)][:n].to(x.dtype).expand(x.shape[0], -1, -1)          # (B, n, W)
        return torch.cat([x[:, :x.shape[1] - former], self.dropout(tokens)], dim=1)

    def project(self, block: int, site: str, x: Tensor, y: Tensor) -> Tensor:
        """See `clip.tuning.Tuner`."""
        if site == "qkv" and (r := self.dims[1][block]):
            return y + F.linear(F.linear(self.dropout(x), self.A[str(block)][:r]), self.B[str(block)][:, :r])
        if site in ("out", "proj") and self.training and (rate := self.drop_paths[block]):
            y = y * (torch.rand(y.shape[0], 1, 1, device=y.device) >= rate) / (1 - rate)
        if site == "proj" and (d := self.dims[2][block]):
            down, up = self.down[str(block)], self.up[str(block)]
            hidden = F.linear(y, down.weight[:d], down.bias[:d])
            hidden = self.dropout(hidden * torch.sigmoid(1.702 * hidden))
            return y + F.linear(hidden, up.weight[:, :d], up.bias)
        return y


def per_block(dims: Sequence[int | Sequence[int]], depth: int, width: int) -> Dims:
    """For each of PARTS a number for each block, from one number for all of them or a list.

    Raises:
        InputError: another length, or a dimension that is not 0 to `width`.
    """
    found = []
    for part, given in zip(PARTS, dims, strict=True):
        row = [given] * depth if isinstance(given, int) else list(given)
        row = row * depth if len(row) == 1 else row
        most = MOST_TOKENS if part == "prompt" else width
        if len(row) != depth or not all(isinstance(n, int) and 0 <= n <= most for n in row):
            raise InputError(f"The dimensions of {part} must be one number, or one for each of the {depth} blocks, of "
                             f"0 to {most}; got {given!r}.")
        found.append(row)
    return found


def parameters_of(dims: Dims, width: int) -> int:
    """Numbers that such parts learn in a tower of that width."""
    prompts, ranks, adapters = dims
    return sum(n * width for n in prompts) + sum(4 * r * width for r in ranks) + \
        sum(2 * d * width + d + width for d in adapters if d)


def _linear(into: int, out: int, std: float) -> nn.Linear:
    layer = nn.Linear(into, out)
    nn.init.normal_(layer.weight, std=std)
    nn.init.zeros_(layer.bias)
    return layer
