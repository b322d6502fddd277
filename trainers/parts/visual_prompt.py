"""Learned tokens in the vision transformer, shallow or deep, in the two placements that papers use.

Source: VPT (Jia et al., ECCV 2022); DAPT (Cho et al., ICCV 2023), trainers/dapt.py; MaPLe (Khattak et al., CVPR 2023),
clip/model.py VisionTransformer and ResidualAttentionBlock_IVLP.
"""
from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from clip import FrozenCLIP, InputError

PLACEMENTS = ("after_cls", "end")


MOST_TOKENS = 1024       # as many as any image tower has patches: the attention takes their square


class VisualPrompt(nn.Module):
    """n learned tokens that join the class token and the patches; deeper blocks replace them with their own.

    Args:
        clip: its image tower must be a vision transformer.
        n_tokens: tokens per prompted block.
        depth: prompted blocks, counted from the first; 1 is shallow.
        dropout: on the tokens, in training.
        placement: "after_cls" (DAPT): between class token and patches, after `ln_pre`, drawn from U(-v, v) with
            v = sqrt(6 / (3 * patch_size^2 + W)). "end" (MaPLe): behind the patches, before `ln_pre`, drawn from
            N(0, 0.02).
    Attributes:
        tokens: (depth, n, W), drawn with torch's global stream.
    Raises:
        InputError: an image tower without tokens; a depth, count or placement that does not exist.
    """

    def __init__(self, clip: FrozenCLIP, n_tokens: int, depth: int = 1, dropout: float = 0.0,
                 placement: str = "after_cls"):
        super().__init__()
        clip.require_tokens("A visual prompt")
        if placement not in PLACEMENTS:
            raise InputError(f"Visual tokens must be placed at {' or '.join(PLACEMENTS)}, got {placement!r}.")
        if not 1 <= depth <= clip.depth:
            raise InputError(f"Visual prompts enter 1 to {clip.depth} blocks of {clip.name or 'this CLIP'}; "
                             f"got {depth}.")
        if not 1 <= n_tokens <= MOST_TOKENS:
            raise InputError(f"A visual prompt must learn 1 to {MOST_TOKENS} tokens, got {n_tokens}.")
        self.n_tokens, self.depth, self.placement = n_tokens, depth, placement
        if not 0 <= dropout < 1:
            raise InputError(f"Dropout must be at least 0 and below 1, got {dropout}.")
        self.dropout = nn.Dropout(dropout)
        self.tokens = nn.Parameter(torch.empty(depth, n_tokens, clip.vision_width, device=clip.logit_scale.device))
        if placement == "after_cls":
            bound = math.sqrt(6 / (3 * clip.patch_size ** 2 + clip.vision_width))
            nn.init.uniform_(self.tokens, -bound, bound)
        else:
            nn.init.normal_(self.tokens, std=0.02)

    def enter(self, block: int, x: Tensor) -> Tensor:
        """What enters `block` instead of x (B, L, W): with n tokens more at the first one, others at the next ones."""
        if self.placement == "after_cls":
            if not 0 <= block < self.depth:
                return x
            return behind_first(x, self._expand(block, x), grows=block == 0)                  # (B, 1+n+P, W)
        return behind_patches(block, x, lambda layer: self._expand(layer, x), self.depth)

    def _expand(self, layer: int, x: Tensor) -> Tensor:
        # An export to ONNX would take len(x) for a constant.
        return self.dropout(self.tokens[layer].to(x.dtype).expand(x.shape[0], -1, -1))        # (B, n, W)


def behind_first(x: Tensor, tokens: Tensor, grows: bool) -> Tensor:
    """x (B, L, W) with tokens (B, n, W) behind the first of each sequence: n more if it `grows`, else instead of n."""
    return torch.cat([x[:, :1], tokens, x[:, 1 + (0 if grows else tokens.shape[1]):]], dim=1)


class PromptSets(nn.Module):
    """M sets of n learned tokens, each of which sees the image by itself: an image passes the tower M times.

    They stand behind the patches, before `ln_pre`, of a vision transformer.

    Attributes:
        tokens: (M, n, W), drawn from N(0, 0.02) with torch's global stream. views: M.
    Raises:
        InputError: an image tower without tokens; no set, or sets without tokens.
    Source: PLOT++ (Chen et al., ICLR 2023), plot-pp/clip/model.py.
    """

    def __init__(self, clip: FrozenCLIP, n_sets: int, n_tokens: int):
        super().__init__()
        clip.require_tokens("A visual prompt")
        if n_sets < 1 or not 1 <= n_tokens <= MOST_TOKENS:
            raise InputError(f"Visual prompts need at least 1 set of 1 to {MOST_TOKENS} tokens, got {n_sets} of "
                             f"{n_tokens}.")
        self.views = n_sets
        self.tokens = nn.Parameter(torch.empty(n_sets, n_tokens, clip.vision_width, device=clip.logit_scale.device))
        nn.init.normal_(self.tokens, std=0.02)

    def enter(self, block: int, x: Tensor) -> Tensor:
        """Before `ln_pre`, x (B, L, W) becomes (M * B, L + n, W), all images with the first set first."""
        if block != -1:
            return x
        M, n, _ = self.tokens.shape
        tokens = self.tokens.to(x.dtype).unsqueeze(1).expand(-1, x.shape[0], -1, -1)          # (M, B, n, W)
        x = x.unsqueeze(0).expand(M, -1, -1, -1)                                              # (M, B, L, W)
        return torch.cat([x, tokens], dim=2).flatten(0, 1)


def behind_patches(block: int, x: Tensor, tokens: Callable[[int], Tensor], depth: int) -> Tensor:
    """What enters `block` instead of x (B, L, W): more tokens behind it before `ln_pre`, others at blocks 1 to depth-1.

    Args:
        block: -1 is before `ln_pre`.
        tokens: of a layer, (B, n, W); layer 0 are those before `ln_pre`. Called for the layers that are needed.
    """
    if block == -1:
        return torch.cat([x, tokens(0)], dim=1)                                               # (B, 1+P+n, W)
    if 0 < block < depth:
        own = tokens(block)
        return torch.cat([x[:, :-own.shape[1]], own], dim=1)                                  # (B, 1+P+n, W)
    return x
