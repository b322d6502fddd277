"""Mean and variance of every token that leaves the first blocks of an image tower, and how far other images are off.

Source: PromptAlign (Hassan et al., NeurIPS 2023), jameelhassan/PromptAlign bfe32b9 trainers/prompt_align.py
distr_align_loss: half of the mean absolute difference of means and half of that of variances, summed over blocks.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from clip import FrozenCLIP, InputError
from trainers.parts.entropy import marginal_entropy, most_confident
from trainers.parts.prompted_model import PromptedModel


class Watched:
    """A tuner that changes nothing and keeps what leaves the first blocks: `seen`, (B, T, W) of each."""

    def __init__(self, blocks: int):
        self.blocks, self.seen = blocks, []

    def leave(self, block: int, x: Tensor, y: Tensor) -> Tensor:
        if block < self.blocks:
            self.seen.append(y)
        return y


class TokenStatistics(nn.Module):
    """Of the images of a source; saved with the prompts that act in the tower.

    Args:
        clip: its image tower must be a vision transformer of more than `blocks` blocks.
        blocks: how many, counted from the first.
        prompts: tokens that join the class token and the patches.
    Attributes:
        means, variances: (blocks, T, W), over images; zero until `fill`.
        images: () int64, how many they are of.
    """

    def __init__(self, clip: FrozenCLIP, blocks: int, prompts: int):
        super().__init__()
        clip.require_tokens("Aligning tokens")
        if not 1 <= blocks < clip.depth:
            raise InputError(f"Tokens are aligned behind 1 to {clip.depth - 1} blocks of {clip.name or 'this CLIP'}, "
                             f"got {blocks}.")
        T, device = 1 + (clip.image_size // clip.patch_size) ** 2 + prompts, clip.logit_scale.device
        for name in ("means", "variances"):
            self.register_buffer(name, torch.zeros(blocks, T, clip.vision_width, device=device))
        self.register_buffer("images", torch.tensor(0, device=device))

    @torch.no_grad()
    def fill(self, batches: Iterable[list[Tensor]]) -> None:
        """From what leaves each block, batch by batch; their sums are taken in float64."""
        total, squares, count = 0.0, 0.0, 0
        for seen in batches:
            tokens = torch.stack(seen).double()                                       # (blocks, B, T, W)
            total, squares, count = total + tokens.sum(1), squares + tokens.pow(2).sum(1), count + tokens.shape[1]
        if not count:
            raise InputError("Token statistics need at least one image.")
        self.means.copy_(total / count)
        self.variances.copy_((squares / count - (total / count) ** 2).clamp(min=0))
        self.images.fill_(count)

    def distance(self, seen: list[Tensor]) -> Tensor:
        """Tokens (B, T, W) of each block -> (): how far mean and variance over the B images are from the source's."""
        found = seen[0].new_zeros(())
        for tokens, mean, variance in zip(seen, self.means, self.variances, strict=True):
            own = tokens.mean(0)
            found = found + 0.5 * (own - mean).abs().mean()
            found = found + 0.5 * ((tokens - own).pow(2).mean(0) - variance).abs().mean()
        return found


def watched_features(model: PromptedModel, images: Tensor, blocks: int) -> tuple[Tensor, list[Tensor]]:
    """(B, 3, H, W) -> unit-norm features (B, D), and what left the first blocks, (B, T, W) each."""
    watched = Watched(blocks)
    return model.clip.encode_image(images, (model.brick("visual"), watched)), watched.seen


def aligned_entropy(model: PromptedModel, views: Tensor, share: float, weight: float) -> Callable[[], Tensor]:
    """What gives the loss () of each step on an image's views (V, 3, H, W).

    It is the entropy of the mean prediction of the most confident views, chosen in the first step, plus `weight` times
    the distance of their tokens from the model's "statistics".
    """
    statistics, chosen = model.brick("statistics"), []

    def loss() -> Tensor:
        features, seen = watched_features(model, views, len(statistics.means))
        logits = model.clip.scale * features @ model.text_for_head().t()                      # (V, C)
        chosen[:] = chosen or [most_confident(logits.detach()[None], share)[0]]
        apart = statistics.distance([tokens.float()[chosen[0]] for tokens in seen])
        return marginal_entropy(logits[chosen[0]][None])[0] + weight * apart

    return loss
