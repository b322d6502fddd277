"""Adapters that let a frozen image tower see the order of a clip's frames, and the head that reads it.

Source: ST-Adapter (Pan et al., NeurIPS 2022), authors' code b914b38, models_adapter.py.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip import FrozenCLIP, InputError

PLACES = {"attention": ("pre_attn",), "mlp": ("pre_mlp",), "both": ("pre_attn", "pre_mlp")}


class SpaceTimeAdapter(nn.Module):
    """x + up(conv(down(x))) on the patch tokens, with a depth-wise convolution over time and space; nothing at first.

    No non-linearity; the class token passes by.

    Args:
        width: of the tokens. bottleneck: of the convolution, at least 1.
        kernel: (t, h, w), odd: over frames, rows and columns.
    Raises:
        InputError: an empty bottleneck, or an even kernel.
    """

    def __init__(self, width: int, bottleneck: int, kernel: tuple[int, int, int]):
        super().__init__()
        if bottleneck < 1 or len(kernel) != 3 or any(k < 1 or k % 2 == 0 for k in kernel):
            raise InputError("A space-time adapter needs a bottleneck of at least 1 and three odd kernel sizes, got "
                             f"{bottleneck} and {tuple(kernel)}.")
        self.fc1, self.fc2 = nn.Linear(width, bottleneck), nn.Linear(bottleneck, width)
        self.conv = nn.Conv3d(bottleneck, bottleneck, tuple(kernel), padding=tuple(k // 2 for k in kernel),
                              groups=bottleneck)
        for zero in (self.conv.weight, self.conv.bias, self.fc1.bias, self.fc2.bias):
            nn.init.zeros_(zero)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """(B * T, 1 + P, W), the frames of each clip together, P patches of a square -> the same shape."""
        N, L, _ = x.shape
        side = round((L - 1) ** 0.5)
        if N % frames or side * side != L - 1:
            raise InputError(f"{N} frames of {L - 1} patches are not whole clips of {frames} square frames.")
        patches = self.fc1(x[:, 1:])                                                          # (B*T, P, C)
        patches = patches.unflatten(0, (-1, frames)).unflatten(2, (side, side))               # (B, T, h, w, C)
        patches = self.conv(patches.movedim(-1, 1)).movedim(1, -1)                            # (B, T, h, w, C)
        patches = self.fc2(patches.flatten(2, 3).flatten(0, 1))                               # (B*T, P, W)
        return torch.cat([x[:, :1], x[:, 1:] + patches.to(x.dtype)], dim=1)


class SpaceTimeTuner(nn.Module):
    """A tuner of the image tower: space-time adapters in its last blocks, before the attention and before the MLP.

    Args:
        clip: its image tower must be a vision transformer.
        layers: adapted blocks, the last ones.
        bottleneck, kernel: see `SpaceTimeAdapter`.
        places: one adapter in each block, before its "attention" or its "mlp", or one before "both".
    Attributes:
        frames: T of the clips that pass; set before they do. pre_attn, pre_mlp: adapters by block.
    Raises:
        InputError: an image tower without tokens, more blocks than it has, an unknown place.
    """

    def __init__(self, clip: FrozenCLIP, layers: int, bottleneck: int, kernel: tuple[int, int, int] = (3, 1, 1),
                 places: str = "attention"):
        super().__init__()
        clip.require_tokens("A space-time adapter")
        if not 1 <= layers <= clip.depth:
            raise InputError(f"Space-time adapters can be in the last 1 to {clip.depth} blocks, got {layers}.")
        if places not in PLACES:
            raise InputError(f"Space-time adapters stand before the {', '.join(PLACES)}, got {places!r}.")
        self.frames, self.first = 1, clip.depth - layers
        for place in PLACES[places]:
            adapters = (SpaceTimeAdapter(clip.vision_width, bottleneck, kernel) for _ in range(layers))
            self.add_module(place, nn.ModuleList(adapters).to(clip.logit_scale.device))
        if places != "mlp":
            self.enter = self._before_attention
        if places != "attention":
            self.project = self._before_mlp             # only then, as products of a block are slower to tune

    def _before_attention(self, block: int, x: Tensor) -> Tensor:
        """See `clip.tuning.Tuner`."""
        i = block - self.first
        return self.pre_attn[i](x, self.frames) if 0 <= i < len(self.pre_attn) else x

    def _before_mlp(self, block: int, site: str, x: Tensor, y: Tensor) -> Tensor:
        i = block - self.first
        if site != "attended" or i < 0 or y.shape[1] == 1:      # of the last block only the class token is read
            return y
        return self.pre_mlp[i](y, self.frames)


class FrameHead(nn.Module):
    """A linear classifier of the class token, averaged over the frames of a clip before the last norm.

    Args:
        dropout: before the classifier, in training.
    Attributes:
        weight: (C, W), N(0, 0.02), drawn with torch's global stream. bias: (C,), zero at first.
    """

    knows_classes, unit_norm, joint = True, False, False

    def __init__(self, clip: FrozenCLIP, num_classes: int, dropout: float = 0.5):
        super().__init__()
        clip.require_tokens("A classifier of class tokens")
        if not 0 <= dropout < 1:
            raise InputError(f"Dropout must be at least 0 and below 1, got {dropout}.")
        weight = torch.randn(num_classes, clip.vision_width) * 0.02
        self.weight = nn.Parameter(weight.to(clip.logit_scale.device))
        self.bias, self.dropout = nn.Parameter(torch.zeros_like(self.weight[:, 0])), nn.Dropout(dropout)

    def forward(self, image_features: Tensor, text_features: None, clip: FrozenCLIP) -> tuple[Tensor, dict]:
        """Class tokens of all blocks (B, depth, W), averaged over frames -> (B, C), and the feature that it reads."""
        feature = clip.visual.ln_post(image_features[:, -1])                                  # (B, W)
        return F.linear(self.dropout(feature), self.weight, self.bias), {"image_features": feature}


class TemporalHead(nn.Module):
    """Cosines with texts of the mean of frame features that first attend to each other, knowing their places in time.

    Args:
        layers: of a transformer encoder of width D. frames: the most that a clip has.
    Attributes:
        position: (frames, D), zero at first, as is what the transformer adds: it begins as the mean of frames.
    Raises:
        InputError: no layer, or a clip of more frames.
    Source: Prompting Visual-Language Models for Efficient Video Understanding (Ju et al., ECCV 2022): frame features
        pass a small transformer encoder and are averaged. Written from the paper; the zeros are ours.
    """

    unit_norm, takes_frames = False, True

    def __init__(self, clip: FrozenCLIP, layers: int, frames: int, heads: int = 8):
        super().__init__()
        if layers < 1 or frames < 1:
            raise InputError(f"A temporal transformer needs at least 1 layer and 1 frame, got {layers} and {frames}.")
        device, D = clip.logit_scale.device, clip.embed_dim
        self.position = nn.Parameter(torch.zeros(frames, D, device=device))
        layer = nn.TransformerEncoderLayer(D, heads if D % heads == 0 else 1, 4 * D, 0.0, "gelu", batch_first=True,
                                           norm_first=True, device=device)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.out = nn.Linear(D, D, device=device)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, image_features: Tensor, text_features: Tensor, clip: FrozenCLIP) -> tuple[Tensor, dict]:
        """Frames (B, T, D), or images (B, D), and (C, D) -> (B, C), and the clip's feature (B, D)."""
        x = image_features if image_features.dim() == 3 else image_features[:, None]
        if x.shape[1] > len(self.position):
            raise InputError(f"This head knows clips of up to {len(self.position)} frames, got {x.shape[1]}.")
        x = F.normalize(x, dim=-1)                                                            # (B, T, D)
        x = x + self.out(self.encoder(x * x.shape[-1] ** 0.5 + self.position[:x.shape[1]]))   # of about unit variance
        clip_feature = F.normalize(x.mean(1), dim=-1)                                         # (B, D)
        texts = F.normalize(text_features, dim=-1)
        return clip.scale * clip_feature @ texts.t() + clip.bias, {"image_features": clip_feature}
