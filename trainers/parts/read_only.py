"""Learned tokens that read a tower's tokens and change none of them.

Source: RPO (Lee et al., ICCV 2023), trainers/rpo.py: attention masks whose columns of the prompts are minus infinity.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip import FrozenCLIP, InputError
from trainers.parts.heads import CosineHead
from trainers.parts.visual_prompt import MOST_TOKENS


class ReadOnlyPrompt(nn.Module):
    """A tuner of one tower: K tokens from the first block on, whose features the tower gives as `want="readers"`.

    They start from the token that the tower reads, each with noise of its own, and have no position.

    Args:
        clip: its image tower must be a vision transformer where `tower` is "image".
        n_tokens: K.
        tower: "image", whose tokens enter before `ln_pre`, or "text".
        noise: length of what is added to each token, in a random direction from torch's global stream.
    Attributes:
        tokens: (K, W).
    Raises:
        InputError: no token; an image tower without tokens.
    """

    def __init__(self, clip: FrozenCLIP, n_tokens: int, tower: str, noise: float = 0.1):
        super().__init__()
        if not 1 <= n_tokens <= MOST_TOKENS:
            raise InputError(f"A tower needs 1 to {MOST_TOKENS} read-only tokens, got {n_tokens}.")
        if tower == "image":
            clip.require_tokens("A read-only visual prompt")
            start = clip.visual.class_embedding                                               # (W,)
        else:
            end = clip.tokenizer.tokenize([""], clip.context_length)[0, 1:2]                  # <start> <end>
            start = clip.embed_tokens(end.to(clip.logit_scale.device))[0]                     # (W,)
        self.first = -1 if tower == "image" else 0
        direction = F.normalize(torch.randn(n_tokens, len(start), device=start.device), dim=-1)
        self.tokens = nn.Parameter(start.detach() + noise * direction)

    def readers(self, block: int, x: Tensor, left: Tensor | None) -> Tensor | None:
        """Tokens (N, K, W) at the first block, what became of them afterwards."""
        return self.tokens.to(x.dtype).expand(x.shape[0], -1, -1) if block == self.first else left


class PairedHead(CosineHead):
    """The mean over K of the cosines of an image's k-th feature with a class's k-th feature, times the scale."""

    def forward(self, image_features: Tensor, text_features: Tensor, clip: FrozenCLIP) -> Tensor:
        """(B, K, D) and (C, K, D), unit norm -> (B, C)."""
        K = image_features.shape[1]
        return super().forward(image_features.flatten(1) / K, text_features.flatten(1), clip)
