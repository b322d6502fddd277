"""Context words and visual tokens that pass one small transformer before they enter the towers.

Source: Unified Vision and Language Prompt Learning (Zang et al., 2022) as MVLPT codes it (Shen et al., WACV 2024;
6fa518b), trainers/mvlpt.py.
"""
from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from clip import FrozenCLIP, InputError
from clip.blocks import Block
from trainers.parts.text_prompt import TextPrompt
from trainers.parts.visual_prompt import MOST_TOKENS, behind_first


class UnifiedText(TextPrompt):
    """A text prompt whose context words are changed by the `UnifiedPrompt` that was built on it."""

    mixer: tuple[UnifiedPrompt, ...] = ()               # in a tuple it is not a part of this module

    def context(self) -> Tensor:
        return self.mixer[0].mixed()[0]


class UnifiedPrompt(nn.Module):
    """A tuner of the image tower: n tokens behind the class token, after `ln_pre`; deeper blocks replace them.

    Its tokens and the context of `text` go through a layer to `width`, one transformer block with one head, and a layer
    back; in float32. There are no layers between equal widths.

    Args:
        clip: its image tower must be a vision transformer.
        text: gives the context (n_ctx, W_text), and takes it back changed.
        n_tokens: n. depth: prompted blocks, counted from the first.
        width: of the transformer.
        joint: whether all words and tokens attend to each other, as the paper draws it. In the code that is published,
            each attends to itself alone: they share weights and nothing else.
    Attributes:
        first (1, n, W), deeper (depth - 1, n, W): tokens, drawn from U(-v, v), v = sqrt(6 / (3 * patch_size^2 + W)),
            with torch's global stream. block, and the layers: PyTorch's initial values.
    Raises:
        InputError: an image tower without tokens; a depth, count or width that does not exist.
    """

    def __init__(self, clip: FrozenCLIP, text: UnifiedText, n_tokens: int, depth: int, width: int, joint: bool = False):
        super().__init__()
        clip.require_tokens("A unified prompt")
        if not 1 <= depth <= clip.depth:
            raise InputError(f"Unified prompts enter 1 to {clip.depth} blocks of {clip.name or 'this CLIP'}'s image "
                             f"tower, got {depth}.")
        if not 1 <= n_tokens <= MOST_TOKENS or width < 1:
            raise InputError(f"A unified prompt needs 1 to {MOST_TOKENS} visual tokens and a width of at least 1, got "
                             f"{n_tokens} and {width}.")
        W, bound = clip.vision_width, math.sqrt(6 / (3 * clip.patch_size ** 2 + clip.vision_width))
        self.first = nn.Parameter(torch.empty(1, n_tokens, W).uniform_(-bound, bound))
        self.deeper = nn.Parameter(torch.empty(depth - 1, n_tokens, W).uniform_(-bound, bound)) if depth > 1 else None
        self.block = initial(Block(width, 1, 4 * width))
        self.text_pre, self.text_post = _between(clip.text_width, width), _between(width, clip.text_width)
        self.image_pre, self.image_post = _between(W, width), _between(width, W)
        self.depth, self.joint, self._text, self._now = depth, joint, (text,), None
        text.mixer = (self,)
        self.to(clip.logit_scale.device)

    def mixed(self) -> tuple[Tensor, Tensor]:
        """Context (n_ctx, W_text) and visual tokens (depth, n, W) that enter the towers."""
        ctx, tokens = self._text[0].ctx, self.first if self.deeper is None else torch.cat([self.first, self.deeper])
        with torch.autocast(ctx.device.type, enabled=False):
            x = torch.cat([self.text_pre(ctx), self.image_pre(tokens.flatten(0, 1))])         # (n_ctx + depth*n, width)
            x = self.block(x[None])[0] if self.joint else self.block(x[:, None])[:, 0]
            words, visual = x.split([len(ctx), len(x) - len(ctx)])
            return self.text_post(words), self.image_post(visual).unflatten(0, tokens.shape[:2])

    def enter(self, block: int, x: Tensor) -> Tensor:
        """What enters `block` instead of x (B, L, W): with n tokens more at the first one, others at the next ones."""
        if not 0 <= block < self.depth:
            return x
        if block == 0:
            self._now = self.mixed()[1]                 # for all blocks of this pass
        tokens = self._now[block].to(x.dtype).expand(x.shape[0], -1, -1)
        if block == self.depth - 1:
            self._now = None
        return behind_first(x, tokens, grows=block == 0)


def initial(block: Block) -> Block:
    """With the values that PyTorch's own modules of these sizes start from."""
    for module in block.modules():
        if isinstance(module, (nn.Linear, nn.LayerNorm)):
            module.reset_parameters()
    nn.init.xavier_uniform_(block.attn.in_proj_weight)
    nn.init.zeros_(block.attn.in_proj_bias)
    nn.init.zeros_(block.attn.out_proj.bias)
    return block


def _between(width: int, other: int) -> nn.Module:
    return nn.Identity() if width == other else nn.Linear(width, other)
