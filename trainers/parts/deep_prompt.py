"""Learned tokens inside the text tower, which replace the context words at deeper blocks.

Source: MaPLe (Khattak et al., CVPR 2023), clip/model.py ResidualAttentionBlock_MaPLe; IVLP and PromptSRC do the same.
"""
from __future__ import annotations

import torch
from torch import Tensor, nn

from clip import FrozenCLIP, InputError


class DeepTextPrompt(nn.Module):
    """A tuner of the text tower: blocks 1 to depth-1 get n tokens of their own at the context's positions.

    What is learned before block 0 is the context of a `TextPrompt`, so `depth` counts that as the first layer. The
    positions are inside the context, which all classes share, so deep prompts cost no more than it; what comes before
    the context stays.

    Args:
        n_tokens: the learned context words of the prompt, at most.
        depth: prompted blocks, counted from the first: 2 to the tower's depth.
        first: position of the context's first word.
    Attributes:
        tokens: (depth - 1, n, W), drawn from N(0, 0.02) with torch's global stream.
    Raises:
        InputError: a depth that the tower does not have.
    """

    def __init__(self, clip: FrozenCLIP, n_tokens: int, depth: int, first: int = 1):
        super().__init__()
        if not 2 <= depth <= clip.text_depth:
            raise InputError(f"Deep text prompts enter 2 to {clip.text_depth} blocks of {clip.name or 'this CLIP'}'s "
                             f"text tower, got {depth}.")
        self.n_tokens, self.first = n_tokens, first
        self.tokens = nn.Parameter(torch.empty(depth - 1, n_tokens, clip.text_width, device=clip.logit_scale.device))
        nn.init.normal_(self.tokens, std=0.02)

    def enter(self, block: int, x: Tensor) -> Tensor:
        """What enters `block` instead of x (B, L, W), L > n: a shared prefix or whole sequences."""
        if not 1 <= block <= len(self.tokens):
            return x
        tokens = self.tokens[block - 1].to(x.dtype).expand(len(x), -1, -1)                    # (B, n, W)
        return torch.cat([x[:, :self.first], tokens, x[:, self.first + self.n_tokens:]], dim=1)    # (B, L, W)
