"""Words of each class's own, made from what a frozen teacher says of it, in place of the context inside the text tower.

Source: TCP (Yao et al., CVPR 2024), trainers/tcp.py PromptLearner and trainers/clip_text/model.py.
"""
from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from clip import FrozenCLIP, InputError


class ClassPrompt(nn.Module):
    """A tuner of the text tower: before one block, positions 1 to n of every class's sequence become its own words.

    The words are linear2(QuickGELU(linear1(t))) of the teacher's features t of the class. New classes get theirs from
    the same two layers. PyTorch's initial weights, from torch's global stream.

    Args:
        teacher: (C, D), unit norm, of the classes in the order of the sequences.
        n_tokens: context words of the prompt, n.
        block: that they enter, from 0.
        reduction: the hidden layer has D // reduction numbers.
    Raises:
        InputError: a block that the tower does not have; a teacher of another width.
    """

    whole_sequence = True

    def __init__(self, clip: FrozenCLIP, teacher: Tensor, n_tokens: int, block: int, reduction: int = 4):
        super().__init__()
        if not 0 <= block < clip.text_depth:
            raise InputError(f"Class-aware words enter one of the blocks 0 to {clip.text_depth - 1} of "
                             f"{clip.name or 'this CLIP'}'s text tower, got {block}.")
        if teacher.dim() != 2 or teacher.shape[1] != clip.embed_dim:
            raise InputError(f"The teacher says {clip.embed_dim} numbers of each class, as wide as what "
                             f"{clip.name or 'this CLIP'} is compared in, got {tuple(teacher.shape)}.")
        hidden = max(1, clip.embed_dim // reduction)
        self.n_tokens, self.block, self.rows = n_tokens, block, slice(None)
        self.linear1 = nn.Linear(clip.embed_dim, hidden)
        self.linear2 = nn.Linear(hidden, n_tokens * clip.text_width)
        self.register_buffer("teacher", teacher, persistent=False)

    def select(self, rows: slice) -> ClassPrompt:
        chosen = copy.copy(self)                    # with the same parameters
        chosen.rows = rows
        return chosen

    def tokens(self) -> Tensor:
        """(C, n, W), of the selected classes."""
        with torch.autocast(self.teacher.device.type, enabled=False):
            hidden = self.linear1(self.teacher[self.rows])                                    # (C, D // 4)
            return self.linear2(hidden * torch.sigmoid(1.702 * hidden)).unflatten(1, (self.n_tokens, -1))

    def enter(self, block: int, x: Tensor) -> Tensor:
        """What enters `block` instead of x (C, L, W)."""
        if block != self.block:
            return x
        tokens = self.tokens().to(x.dtype)
        if len(tokens) != len(x):
            raise InputError(f"The teacher speaks of {len(tokens)} classes, and the prompt of {len(x)}.")
        return torch.cat([x[:, :1], tokens, x[:, 1 + self.n_tokens:]], dim=1)                 # (C, L, W)
