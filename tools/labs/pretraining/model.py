"""The towers of `clip/` before their training, released, and their way into clip/tiny.safetensors."""

import json
import math
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from clip import FrozenCLIP
from clip.backbones import PIXEL_MEAN, PIXEL_STD
from clip.tiny import read_tiny
from dassl.files.whole import write_whole

IMAGE, PATCH, WIDTH, EMBED, CONTEXT = 32, 8, 128, 128, 77
VISION_BLOCKS, TEXT_BLOCKS = 4, 2
QUICK = 1.702  # QuickGELU(x) = x * sigmoid(1.702 x)


def untrained(rows: int) -> FrozenCLIP:
    """Both towers, in which everything learns; their activation is SiLU in training, QuickGELU in exported weights.

    Args:
        rows: of the embedding table.
    """
    clip = FrozenCLIP.from_state_dict({**_vision(), **_text(rows)})
    for blocks in (clip.transformer.resblocks, clip.visual.transformer.resblocks):
        for block in blocks:
            block.mlp.gelu = nn.SiLU()
    return clip.requires_grad_(True)


def _vision() -> dict[str, Tensor]:
    conv = nn.Conv2d(3, WIDTH, PATCH, PATCH, bias=False)
    nn.init.normal_(conv.weight, std=(3 * PATCH * PATCH) ** -0.5)
    # Places at the scale of the patch embeddings, or the towers learn shapes without places for hundreds of steps.
    found = {"conv1.weight": conv.weight, "class_embedding": torch.randn(WIDTH) * 0.5,
             "positional_embedding": torch.cat([torch.zeros(1, WIDTH), sincos_positions(IMAGE // PATCH, WIDTH)]),
             **_norm("ln_pre"), **_norm("ln_post"), **_blocks(VISION_BLOCKS),
             "proj": torch.randn(WIDTH, EMBED) * WIDTH**-0.5}
    return {f"visual.{name}": value for name, value in found.items()}


def _text(rows: int) -> dict[str, Tensor]:
    table = nn.Embedding(rows, WIDTH)
    found = {"positional_embedding": torch.randn(CONTEXT, WIDTH) * 0.01, **_blocks(TEXT_BLOCKS), **_norm("ln_final"),
             "text_projection": torch.randn(WIDTH, EMBED) * WIDTH**-0.5,
             "logit_scale": torch.tensor(math.log(1 / 0.07))}
    nn.init.normal_(table.weight, std=0.02)
    return {**found, "token_embedding.weight": table.weight}


def _blocks(count: int) -> dict[str, Tensor]:
    return {f"transformer.resblocks.{i}.{name}": value for i in range(count) for name, value in _block(count).items()}


def _block(blocks: int) -> dict[str, Tensor]:
    """Of `blocks`: the more there are, the less each adds at first."""
    shrink = (2 * blocks) ** -0.5
    in_proj = torch.randn(3 * WIDTH, WIDTH) * WIDTH**-0.5
    layers = {"attn.out_proj": nn.Linear(WIDTH, WIDTH), "mlp.c_fc": nn.Linear(WIDTH, 4 * WIDTH),
              "mlp.c_proj": nn.Linear(4 * WIDTH, WIDTH)}
    for name, std in (("attn.out_proj", WIDTH**-0.5 * shrink), ("mlp.c_proj", (4 * WIDTH) ** -0.5 * shrink),
                      ("mlp.c_fc", (2 * WIDTH) ** -0.5)):
        nn.init.normal_(layers[name].weight, std=std)
    return {"attn.in_proj_weight": in_proj, "attn.in_proj_bias": torch.zeros(3 * WIDTH), **_norm("ln_1"),
            **_norm("ln_2"), **{f"{name}.weight": layer.weight for name, layer in layers.items()},
            **{f"{name}.bias": torch.zeros(layer.out_features) for name, layer in layers.items()}}


def _norm(name: str) -> dict[str, Tensor]:
    return {f"{name}.weight": torch.ones(WIDTH), f"{name}.bias": torch.zeros(WIDTH)}


def sincos_positions(grid: int, width: int) -> Tensor:
    """(grid * grid, W) of unit variance: half of the channels for the row, half for the column."""
    angle = torch.arange(grid)[:, None] * torch.exp(torch.arange(width // 4) * (-math.log(100) / (width // 4)))
    axis = torch.cat([angle.sin(), angle.cos()], 1) * 2**0.5  # (grid, W / 2)
    return torch.cat([axis.repeat_interleave(grid, 0), axis.repeat(grid, 1)], 1)


def normalise(images: Tensor) -> Tensor:
    """(B, 32, 32, 3) uint8 -> (B, 3, 32, 32) float with CLIP's mean and std taken out."""
    return ((images.float() / 255 - torch.tensor(PIXEL_MEAN)) / torch.tensor(PIXEL_STD)).permute(0, 3, 1, 2)


def fold_silu(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same function with QuickGELU in place of SiLU: SiLU(x) = 1.702 * QuickGELU(x / 1.702)."""
    scale = {".mlp.c_fc.weight": 1 / QUICK, ".mlp.c_fc.bias": 1 / QUICK, ".mlp.c_proj.weight": QUICK}
    factors = {key: next((f for end, f in scale.items() if key.endswith(end)), 1.0) for key in state}
    return {key: value * factors[key] if factors[key] != 1 else value.clone() for key, value in state.items()}


def export(model: FrozenCLIP, vocabulary, path: Path) -> FrozenCLIP:
    """Write the model in half precision, atomically; returns what a reader of the file computes with, in float32."""
    state = {key: value.detach().half() for key, value in fold_silu(model.state_dict()).items()}
    rows = state.pop("token_embedding.weight")
    tensors = {key: value.contiguous() for key, value in state.items()}
    tensors |= {"token_embedding.ids": torch.tensor(vocabulary.ids), "token_embedding.rows": rows}
    metadata = {"row_std": repr(float(rows.float().std())), "vocabulary": json.dumps(vocabulary.words)}
    write_whole(path, save(tensors, metadata))
    return load(path)


def load(path: Path) -> FrozenCLIP:
    """The model of an exported file, as anybody reads it."""
    return FrozenCLIP.from_state_dict(read_tiny(path)[0])
