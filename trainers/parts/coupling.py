"""Visual tokens that are linear functions of the text tower's learned tokens, block by block.

Source: MaPLe (Khattak et al., CVPR 2023), trainers/maple.py MultiModalPromptLearner.
"""
from __future__ import annotations

import copy

from torch import Tensor, nn

from clip import FrozenCLIP, InputError
from trainers.parts.deep_prompt import DeepTextPrompt
from trainers.parts.text_prompt import TextPrompt
from trainers.parts.visual_prompt import behind_patches


class CoupledPrompt(nn.Module):
    """A tuner of the image tower, which learns projections and no token.

    Its tokens stand behind the patches, before `ln_pre`: proj(ctx); blocks 1 to depth-1 replace them by deeper[i](P_i),
    P_i the text tower's tokens of that block. All of `deeper` start as copies of one layer.

    Args:
        clip: its image tower must be a vision transformer.
        text: gives the context ctx (n, W) and the position `first` of its first word.
        depth: prompted blocks of both towers, counted from the first; 1 is shallow.
    Attributes:
        proj: text width to vision width; deeper: depth - 1 of these. PyTorch's default initial values.
        deep_text: tuner of the text tower with the tokens P_i; None at depth 1. Not a part of this module: it is a
            brick of its own.
    Raises:
        InputError: an image tower without tokens; a depth that one of the towers does not have.
    """

    def __init__(self, clip: FrozenCLIP, text: TextPrompt, depth: int):
        super().__init__()
        clip.require_tokens("A coupled prompt")
        deepest = min(clip.depth, clip.text_depth)
        if not 1 <= depth <= deepest:
            raise InputError(f"Coupled prompts enter 1 to {deepest} blocks of both towers of "
                             f"{clip.name or 'this CLIP'}, got {depth}.")

        def projection() -> nn.Linear:
            return nn.Linear(clip.text_width, clip.vision_width, device=clip.logit_scale.device)

        # The published order of random draws: projection, deep tokens, the one deeper projection.
        self.proj = projection()
        deep_text = DeepTextPrompt(clip, text.n_ctx, depth, text.first) if depth > 1 else None
        one = projection()
        self.deeper = nn.ModuleList(copy.deepcopy(one) for _ in range(depth - 1))
        self.depth, self._sources = depth, (text, deep_text)        # in a tuple they are no parts of this module

    @property
    def deep_text(self) -> DeepTextPrompt | None:
        return self._sources[1]

    def enter(self, block: int, x: Tensor) -> Tensor:
        """What enters `block` instead of x (B, L, W): with n tokens more before `ln_pre`, others at the next blocks."""
        return behind_patches(block, x, lambda layer: self.tokens(layer).to(x.dtype).expand(x.shape[0], -1, -1),
                              self.depth)

    def tokens(self, layer: int) -> Tensor:
        """(n, W) tokens of the image tower; layer 0 are those before `ln_pre`."""
        text, deep_text = self._sources
        return self.proj(text.ctx) if layer == 0 else self.deeper[layer - 1](deep_text.tokens[layer - 1])


def coupled_names(depth: int) -> dict[str, str | list[str]]:
    """Names of a `text` prompt's context, a `visual` coupling and its deep `text_tuner` in MaPLe's checkpoints."""
    kinds = ("weight", "bias")
    names = {"text.ctx": "ctx", **{f"visual.proj.{kind}": f"proj.{kind}" for kind in kinds}}
    for i in range(depth - 1):
        names |= {f"visual.deeper.{i}.{kind}": f"compound_prompt_projections.{i}.{kind}" for kind in kinds}
    if depth > 1:
        names["text_tuner.tokens"] = [f"compound_prompts_text.{i}" for i in range(depth - 1)]
    return names
