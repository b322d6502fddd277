"""Tokens in a space of their own that enter the deep blocks of both towers, and the head that reads them.

Source: MMRL (Guo and Gu, CVPR 2025), trainers/mmrl.py and clip/model_mmrl.py.
"""
from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip import FrozenCLIP, InputError
from trainers.parts.seen_classes import which_were_seen
from trainers.parts.visual_prompt import MOST_TOKENS, behind_first


class Representation(nn.Module):
    """A tuner of the image tower: projections of K shared tokens, behind the class token of some blocks.

    At the first of these blocks the sequence grows by K tokens, which have no position; at the others they are
    replaced. `text` does the same in the text tower, behind the start token, from the same shared tokens. These are
    alike for all classes, so the text tower keeps its shared prefix.

    Args:
        clip: its image tower must be a vision transformer.
        n_tokens: K. width: of the shared tokens.
        layers: blocks of both towers, counted from 1 as in the paper, in rising order. Between them the tokens of the
            layer before travel on.
    Attributes:
        tokens: (K, width), drawn from N(0, 0.02) with torch's global stream.
        deeper: a layer to the tower's width per block, all of them copies of one at first; PyTorch's initial values.
        text: a `RepresentationText`. Not a part of this module: it is a brick of its own.
    Raises:
        InputError: an image tower without tokens; blocks that the towers do not have, or in another order.
    """

    def __init__(self, clip: FrozenCLIP, n_tokens: int, width: int, layers: Sequence[int]):
        super().__init__()
        clip.require_tokens("A representation token")
        deepest, layers = min(clip.depth, clip.text_depth), list(layers)
        whole = bool(layers) and all(isinstance(layer, int) for layer in layers)
        if not whole or layers != sorted(set(layers)) or layers[0] < 1 or layers[-1] > deepest:
            raise InputError("Representation tokens must enter one or more blocks, in rising order, from 1 to "
                             f"{deepest} in the towers of {clip.name or 'this CLIP'}, got "
                             f"{', '.join(map(str, layers)) or 'none'}.")
        if not 1 <= n_tokens <= MOST_TOKENS or width < 1:
            raise InputError(f"A representation needs 1 to {MOST_TOKENS} tokens of width 1 or more, got {n_tokens} of "
                             f"{width}.")
        device = clip.logit_scale.device
        self.tokens = nn.Parameter(torch.empty(n_tokens, width, device=device))
        nn.init.normal_(self.tokens, std=0.02)
        # The published order of random draws: tokens, the image tower's layer, the text tower's.
        self.deeper = _copies(nn.Linear(width, clip.vision_width, device=device), len(layers))
        self.layer_of = {block - 1: i for i, block in enumerate(layers)}
        self._text = (RepresentationText(self, _copies(nn.Linear(width, clip.text_width, device=device), len(layers))),)

    @property
    def text(self) -> RepresentationText:
        return self._text[0]                            # in a tuple it is not a part of this module

    def enter(self, block: int, x: Tensor) -> Tensor:
        """What enters `block` instead of x (B, L, W): with K tokens more at the first one, others at the next ones."""
        return _projected(x, self.layer_of.get(block), self.tokens, self.deeper)


class RepresentationText(nn.Module):
    """The tuner of the text tower that belongs to a `Representation`; `deeper` are its own layers."""

    def __init__(self, shared: Representation, deeper: nn.ModuleList):
        super().__init__()
        self.deeper, self._shared = deeper, (shared,)

    def enter(self, block: int, x: Tensor) -> Tensor:
        """What enters `block` instead of x (B, L, W): a shared prefix or whole sequences."""
        shared = self._shared[0]
        return _projected(x, shared.layer_of.get(block), shared.tokens, self.deeper)


def _copies(layer: nn.Linear, n: int) -> nn.ModuleList:
    return nn.ModuleList(copy.deepcopy(layer) for _ in range(n))


def _projected(x: Tensor, layer: int | None, tokens: Tensor, deeper: nn.ModuleList) -> Tensor:
    """x (B, L, W) with the projected tokens behind the first of each sequence, in place of those of a layer before."""
    if layer is None:
        return x
    own = deeper[layer](tokens).to(x.dtype).expand(x.shape[0], -1, -1)                        # (B, K, W)
    return behind_first(x, own, grows=layer == 0)                                             # (B, L or L+K, W)


class RepresentationHead(nn.Module):
    """Cosines of the class token and of the mean representation token with the classes, mixed.

    Classes that training did not see are scored by the class token alone. Image features are those of the class token.

    Args:
        alpha: share of the class token's logits, from 0 to 1.
        seen: for each class whether training saw it; None where nobody says, which is enough for training.
        scale: factor on cosines, a constant.
    Attributes:
        projection: (W, D) of the representation tokens, drawn from N(0, 1/W) with torch's global stream.
        seen: (C,) bool, or None.
    Raises:
        InputError: an alpha outside its range; in evaluation, nobody says which classes were seen.
    """

    unit_norm, joint = False, False

    def __init__(self, clip: FrozenCLIP, alpha: float, seen: Sequence[bool] | None, scale: float = 100.0):
        super().__init__()
        if not 0 <= alpha <= 1:
            raise InputError(f"The class token's share must be from 0 to 1, got {alpha}.")
        W, device = clip.vision_width, clip.logit_scale.device
        self.alpha, self.scale = alpha, scale
        self.projection = nn.Parameter(W ** -0.5 * torch.randn(W, clip.embed_dim, device=device))
        self.register_buffer("seen", None if seen is None else torch.tensor(list(seen), device=device), False)

    def forward(self, image_features: Tensor, text_features: Tensor, clip: FrozenCLIP) -> tuple[Tensor, dict]:
        """Class and representation tokens (B, 1+K, W) after the last norm, and texts (C, D), neither normalised.

        Returns:
            Logits (B, C); "main" and "rep", those of the class token and of the others; "image_features" (B, D).
        """
        texts = F.normalize(text_features, dim=-1)
        main = F.normalize(image_features[:, 0] @ clip.visual.proj, dim=-1)                   # (B, D)
        rep = F.normalize(image_features[:, 1:].mean(dim=1) @ self.projection, dim=-1)        # (B, D)
        of_main, of_rep = (self.scale * features @ texts.t() for features in (main, rep))     # (B, C)
        logits = self.alpha * of_main + (1 - self.alpha) * of_rep
        if not self.training:
            logits = torch.where(which_were_seen(self.seen, len(texts)), logits, of_main)
        return logits, {"main": of_main, "rep": of_rep, "image_features": main}
