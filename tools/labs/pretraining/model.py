"""A plain trainable CLIP in OpenAI's key layout, small enough for a CPU, and its way into clip/tiny.safetensors."""

import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save
from torch import Tensor, nn

from clip.backbones import PIXEL_MEAN, PIXEL_STD
from dassl.files.whole import write_whole

IMAGE, PATCH, WIDTH, EMBED, CONTEXT = 32, 8, 128, 128, 77
VISION_BLOCKS, TEXT_BLOCKS = 4, 2
QUICK = 1.702  # QuickGELU(x) = x * sigmoid(1.702 x)


def quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(QUICK * x)


class Attention(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.heads = width // 64
        self.in_proj_weight = nn.Parameter(torch.randn(3 * width, width) * width**-0.5)
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, causal: bool) -> Tensor:
        B, L, W = x.shape
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias).view(B, L, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, heads, L, 64) each
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        return self.out_proj(mixed.transpose(1, 2).reshape(B, L, W))


class Block(nn.Module):
    def __init__(self, width: int, blocks: int, activation):
        super().__init__()
        self.attn, self.ln_1, self.ln_2 = Attention(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)})
        self.activation = activation
        shrink = (2 * blocks) ** -0.5
        for layer, std in ((self.attn.out_proj, width**-0.5), (self.mlp["c_proj"], (4 * width) ** -0.5)):
            nn.init.normal_(layer.weight, std=std * shrink)
        nn.init.normal_(self.mlp["c_fc"].weight, std=(2 * width) ** -0.5)
        for layer in (self.attn.out_proj, *self.mlp.values()):
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, causal: bool) -> Tensor:
        x = x + self.attn(self.ln_1(x), causal)
        return x + self.mlp["c_proj"](self.activation(self.mlp["c_fc"](self.ln_2(x))))


class Transformer(nn.Module):
    def __init__(self, width: int, blocks: int, activation):
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width, blocks, activation) for _ in range(blocks))

    def forward(self, x: Tensor, causal: bool = False) -> Tensor:
        for block in self.resblocks:
            x = block(x, causal)
        return x


def sincos_positions(grid: int, width: int) -> Tensor:
    """(grid * grid, W) of unit variance: half of the channels for the row, half for the column."""
    angle = torch.arange(grid)[:, None] * torch.exp(torch.arange(width // 4) * (-math.log(100) / (width // 4)))
    axis = torch.cat([angle.sin(), angle.cos()], 1) * 2**0.5  # (grid, W / 2)
    return torch.cat([axis.repeat_interleave(grid, 0), axis.repeat(grid, 1)], 1)


class Vision(nn.Module):
    def __init__(self, activation):
        super().__init__()
        grid = IMAGE // PATCH
        self.conv1 = nn.Conv2d(3, WIDTH, PATCH, PATCH, bias=False)
        nn.init.normal_(self.conv1.weight, std=(3 * PATCH * PATCH) ** -0.5)
        self.class_embedding = nn.Parameter(torch.randn(WIDTH) * 0.5)
        # At the scale of the patch embeddings, or the towers learn shapes without places for hundreds of steps.
        self.positional_embedding = nn.Parameter(torch.cat([torch.zeros(1, WIDTH), sincos_positions(grid, WIDTH)]))
        self.ln_pre, self.ln_post = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.transformer = Transformer(WIDTH, VISION_BLOCKS, activation)
        self.proj = nn.Parameter(torch.randn(WIDTH, EMBED) * WIDTH**-0.5)

    def forward(self, images: Tensor) -> Tensor:
        """The class token after ln_post, (B, W); `@ proj` gives the joint feature."""
        x = self.conv1(images).flatten(2).transpose(1, 2)  # (B, P, W)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], 1) + self.positional_embedding
        return self.ln_post(self.transformer(self.ln_pre(x))[:, 0])


class TinyCLIP(nn.Module):
    """Both towers; `activation` is SiLU in training and QuickGELU for exported weights."""

    def __init__(self, rows: int, activation=F.silu):
        super().__init__()
        self.visual = Vision(activation)
        self.token_embedding = nn.Embedding(rows, WIDTH)
        self.positional_embedding = nn.Parameter(torch.randn(CONTEXT, WIDTH) * 0.01)
        self.transformer = Transformer(WIDTH, TEXT_BLOCKS, activation)
        self.ln_final = nn.LayerNorm(WIDTH)
        self.text_projection = nn.Parameter(torch.randn(WIDTH, EMBED) * WIDTH**-0.5)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        nn.init.normal_(self.token_embedding.weight, std=0.02)

    def encode_text(self, rows: Tensor, end: Tensor) -> Tensor:
        """Rows (U, L) and the place of end-of-text (U,) -> (U, D) unit norm."""
        x = self.token_embedding(rows) + self.positional_embedding[: rows.shape[1]]
        x = self.ln_final(self.transformer(x, causal=True)[torch.arange(len(x)), end])
        return F.normalize(x @ self.text_projection, dim=-1)

    def encode_image(self, images: Tensor) -> Tensor:
        """Normalised pixels (B, 3, 32, 32) -> (B, D) unit norm."""
        return F.normalize(self.visual(images) @ self.visual.proj, dim=-1)


def normalise(images: Tensor) -> Tensor:
    """(B, 32, 32, 3) uint8 -> (B, 3, 32, 32) float with CLIP's mean and std taken out."""
    return ((images.float() / 255 - torch.tensor(PIXEL_MEAN)) / torch.tensor(PIXEL_STD)).permute(0, 3, 1, 2)


def fold_silu(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same function with QuickGELU in place of SiLU: SiLU(x) = 1.702 * QuickGELU(x / 1.702)."""
    scale = {".mlp.c_fc.weight": 1 / QUICK, ".mlp.c_fc.bias": 1 / QUICK, ".mlp.c_proj.weight": QUICK}
    factors = {key: next((f for end, f in scale.items() if key.endswith(end)), 1.0) for key in state}
    return {key: value * factors[key] if factors[key] != 1 else value.clone() for key, value in state.items()}


def export(model: TinyCLIP, vocabulary, path: Path) -> TinyCLIP:
    """Write the model in half precision, atomically; returns what a reader of the file computes with, in float32."""
    state = {key: value.detach().half() for key, value in fold_silu(model.state_dict()).items()}
    rows = state.pop("token_embedding.weight")
    tensors = {key: value.contiguous() for key, value in state.items()}
    tensors |= {"token_embedding.ids": torch.tensor(vocabulary.ids), "token_embedding.rows": rows}
    metadata = {"row_std": repr(float(rows.float().std())), "vocabulary": json.dumps(vocabulary.words)}
    write_whole(path, save(tensors, metadata))
    return load(path)


def load(path: Path) -> TinyCLIP:
    """The model of an exported file, in float32, with as many embedding rows as are stored."""
    state = {key: value.float() for key, value in load_file(str(path)).items() if key != "token_embedding.ids"}
    state["token_embedding.weight"] = state.pop("token_embedding.rows")
    model = TinyCLIP(len(state["token_embedding.weight"]), quick_gelu)
    model.load_state_dict(state)
    return model.eval()
