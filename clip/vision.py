"""CLIP's image towers: the vision transformer that tuners can enter, the modified ResNet, and any other as it is.

Source: CLIP (Radford et al., ICML 2021), clip/model.py; the attention pool at every position as in PLOT (Chen et al.,
ICLR 2023).
"""
from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import Block, LayerNorm, Places, take
from .errors import InputError
from .tuning import Tuners

Want = str | Sequence[int]
WANTS = ("pooled", "tokens", "class_tokens", "readers")


def check_want(want: Want) -> None:
    """Raises InputError unless it is one of WANTS or positions of tokens."""
    if isinstance(want, str) and want not in WANTS:
        raise InputError(f"A tower gives {', '.join(map(repr, WANTS))} or the tokens at given positions, got {want!r}.")


def build_blocks(weights: dict[str, Tensor], width: int, heads: int, activation: str) -> nn.Module:
    """A tower's `transformer`, with as many and as wide `resblocks` as `weights` hold; not yet loaded."""
    depth = 1 + max(int(k.split(".")[2]) for k in weights if k.startswith("transformer.resblocks."))
    first = "transformer.resblocks.0."
    hidden, scaled = len(weights[first + "mlp.c_fc.weight"]), first + "ls_1.gamma" in weights
    transformer = nn.Module()
    transformer.resblocks = nn.ModuleList(Block(width, heads, hidden, activation, scaled) for _ in range(depth))
    return transformer


class VisionTransformer(nn.Module):
    """CLIP's ViT over patches and one class token, with OpenAI's parameter names."""

    def __init__(self, weights: dict[str, Tensor], heads: int, activation: str):
        super().__init__()
        width, _, patch, _ = weights["conv1.weight"].shape
        self.conv1 = nn.Conv2d(3, width, patch, stride=patch, bias="conv1.bias" in weights)
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty_like(weights["positional_embedding"]))
        self.ln_pre = LayerNorm(width) if "ln_pre.weight" in weights else nn.Identity()
        self.transformer = build_blocks(weights, width, heads, activation)
        self.ln_post = LayerNorm(width)
        self.proj = nn.Parameter(torch.empty_like(weights["proj"]))
        self.width, self.patch_size, self.depth = width, patch, len(self.transformer.resblocks)
        self.image_size = round((len(self.positional_embedding) - 1) ** 0.5) * patch

    def forward(self, images: Tensor, tuners: Tuners | None = None, want: Want = "pooled",
                joint: bool = True) -> Tensor:
        """Features, not normalised; see `FrozenCLIP.encode_image` for `want` and `joint`.

        Returns:
            (B, D) pooled, else (B, k, D); W in place of D for "class_tokens" and where `joint` is off.
        """
        tuners = tuners or Tuners(None)
        x = self.conv1(images).flatten(2).transpose(1, 2)                                     # (B, P, W)
        cls = self.class_embedding.to(x.dtype).expand(x.shape[0], 1, -1)                      # (B, 1, W)
        x = torch.cat([cls, x], dim=1) + self.positional_embedding.to(x.dtype)                # (B, 1+P, W)
        x = tuners.enter(-1, x)
        readers = tuners.readers(-1, x, None)
        x, readers = self.ln_pre(x), None if readers is None else self.ln_pre(readers)
        *blocks, last = self.transformer.resblocks
        class_tokens = []
        for i, block in enumerate(blocks):
            x = tuners.enter(i, x)
            readers = tuners.read_only(i, block, x, readers)
            x = tuners.leave(i, x, block(x, project=tuners.project(i), prefix=tuners.prefix(i, x)))
            class_tokens.append(x[:, :1])
        i, x = len(blocks), tuners.enter(len(blocks), x)
        readers = tuners.readers(i + 1, x, tuners.read_only(i, last, x, readers))
        if want == "readers":
            x = required(readers)
        else:
            index = places(want, x)                                                          # (1, k)
            y = last.read(x, index, project=tuners.project(i), prefix=tuners.prefix(i, x))
            x = tuners.leave(i, take(x, index), y)                                            # (B, k, W)
        if want == "class_tokens":
            return torch.cat([*class_tokens, x], dim=1)                                       # (B, depth, W)
        x = self.ln_post(x)
        x = x @ self.proj if joint else x
        return x.squeeze(1) if want == "pooled" else x

    @torch.no_grad()
    def resize(self, image_size: int) -> None:
        """Position embeddings for images of another side, by bicubic interpolation."""
        if image_size % self.patch_size:
            raise InputError(f"Images must be whole {self.patch_size}-pixel patches wide, got {image_size} pixels.")
        cls, grid = self.positional_embedding[:1], self.positional_embedding[1:]
        grid = resize_grid(grid, image_size // self.patch_size)
        self.positional_embedding = nn.Parameter(torch.cat([cls, grid]), requires_grad=False)
        self.image_size = image_size


def required(readers: Tensor | None) -> Tensor:
    """Raises InputError where there are no read-only tokens."""
    if readers is None:
        raise InputError("No tuner gives read-only tokens, so 'readers' cannot be read.")
    return readers


def places(want: Want, x: Tensor) -> Places:
    """The tokens of x (B, L, W) that `want` means; the first unless it says otherwise. Nothing is moved to a GPU."""
    if isinstance(want, str):
        return slice(None) if want == "tokens" else slice(0, 1)
    L = x.shape[1]
    if outside := [p for p in want if not -L <= p < L]:
        raise InputError(f"There are tokens 0 to {L - 1}, got position {outside[0]}.")
    return list(want)


def resize_grid(grid: Tensor, side: int) -> Tensor:
    """(s * s, W) embeddings of a square of positions -> (side * side, W), bicubic."""
    now = round(len(grid) ** 0.5)
    square = grid.T.reshape(1, -1, now, now).float()
    return F.interpolate(square, (side, side), mode="bicubic").flatten(2)[0].T.to(grid.dtype)


class OpaqueTower(nn.Module):
    """Another architecture (ConvNeXt, EVA, ...): images in, pooled features out."""

    def __init__(self, tower: nn.Module, image_size: int):
        super().__init__()
        self.tower, self.image_size = tower, image_size

    def forward(self, images: Tensor, tuners: Tuners | None = None, want: Want = "pooled",
                joint: bool = True) -> Tensor:
        """(B, 3, H, W) -> (B, D), not normalised."""
        if want != "pooled" or not joint:
            raise InputError(f"This image tower ({type(self.tower).__name__}) gives pooled features in the joint space "
                             "alone. Use a ViT, or a ResNet for its tokens.")
        features = self.tower(images)
        return features[0] if isinstance(features, tuple) else features


def build_resnet(weights: dict[str, Tensor], heads: int) -> nn.Module:
    """CLIP's modified ResNet, with open_clip's modules under OpenAI's parameter names; not yet loaded."""
    from open_clip.modified_resnet import ModifiedResNet

    class ResNet(ModifiedResNet):
        def forward(self, images: Tensor, tuners: Tuners | None = None, want: Want = "pooled",
                    joint: bool = True) -> Tensor:
            """(B, 3, H, W) -> (B, D), or its attention pool at the mean and at every position, (B, 1+P, D)."""
            if want not in ("pooled", "tokens") or not joint:
                raise InputError("A ResNet gives pooled features, or its attention pool at every position ('tokens'), "
                                 f"in the joint space, got {want!r}. Use a ViT for the rest.")
            if want == "pooled":
                return super().forward(images)
            x = self.layer4(self.layer3(self.layer2(self.layer1(self.stem(images)))))         # (B, W, h, w)
            return _pool_everywhere(self.attnpool, x.flatten(2).transpose(1, 2))

        @torch.no_grad()
        def resize(self, image_size: int) -> None:
            if image_size % 32:
                raise InputError(f"Images of a ResNet must be a multiple of 32 pixels wide, got {image_size}.")
            mean, grid = self.attnpool.positional_embedding[:1], self.attnpool.positional_embedding[1:]
            resized = torch.cat([mean, resize_grid(grid, image_size // 32)])
            self.attnpool.positional_embedding = nn.Parameter(resized, requires_grad=False)
            self.image_size = image_size

    layers = [len({k.split(".")[1] for k in weights if k.startswith(f"layer{i}.")}) for i in (1, 2, 3, 4)]
    side = round((len(weights["attnpool.positional_embedding"]) - 1) ** 0.5) * 32
    return ResNet(layers, len(weights["attnpool.c_proj.weight"]), heads, image_size=side,
                  width=weights["layer1.0.conv1.weight"].shape[0])


def _pool_everywhere(pool: nn.Module, x: Tensor) -> Tensor:
    """(B, P, W) -> (B, 1+P, D): attention of the mean and of each position over all of them."""
    x = torch.cat([x.mean(dim=1, keepdim=True), x], dim=1) + pool.positional_embedding.to(x.dtype)
    q, k, v = (layer(x).unflatten(-1, (pool.num_heads, -1)).transpose(1, 2)                   # (B, h, 1+P, d)
               for layer in (pool.q_proj, pool.k_proj, pool.v_proj))
    return pool.c_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
