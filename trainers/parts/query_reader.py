"""Queries that read every block of the image tower, and a linear classifier on what they read.

Source: VQT (Tu et al., CVPR 2023), src/models/vit_backbones/h2t_vit.py and src/models/build_h2t_model.py setup_head.
"""
from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip import FrozenCLIP, InputError

READS = ("all", "mean", "sum")


class QueryReader(nn.Module):
    """A tuner of the image tower: q tokens of their own in every block, which change nothing and are read behind it.

    Args:
        clip: its image tower must be a vision transformer.
        n_queries: q.
        dropout: on the queries, in training.
    Attributes:
        tokens: (depth, q, W), drawn from U(-v, v), v = sqrt(6 / (3 * patch_size^2 + W)), with torch's global stream.
    Raises:
        InputError: an image tower without tokens; no query.
    """

    def __init__(self, clip: FrozenCLIP, n_queries: int, dropout: float = 0.0):
        super().__init__()
        clip.require_tokens("A query of the blocks")
        if n_queries < 1:
            raise InputError(f"A block needs at least 1 query, got {n_queries}.")
        bound = math.sqrt(6 / (3 * clip.patch_size ** 2 + clip.vision_width))
        self.tokens = nn.Parameter(torch.empty(clip.depth, n_queries, clip.vision_width,
                                               device=clip.logit_scale.device).uniform_(-bound, bound))
        if not 0 <= dropout < 1:
            raise InputError(f"Dropout must be at least 0 and below 1, got {dropout}.")
        self.dropout, self._read = nn.Dropout(dropout), []

    def readers(self, block: int, x: Tensor, left: Tensor | None) -> Tensor | None:
        """See `clip.tuning.Tuner`."""
        if block == 0:
            self._read = []
        if left is not None:
            self._read.append(left)
        if not 0 <= block < len(self.tokens):
            return left
        return self.dropout(self.tokens[block].to(x.dtype).expand(x.shape[0], -1, -1))        # (B, q, W)

    def taken(self) -> Tensor:
        """(B, depth, q, W) float32: what was read of the last images, as it left the blocks; given once."""
        read, self._read = torch.stack(self._read, dim=1).float(), []
        return read


class QueryHead(nn.Module):
    """A linear classifier of the class token and of what the queries read in each block.

    Args:
        keep: share of the features that `select` keeps, in (0, 1].
        read: of the q tokens of a block: "all" of them, their "mean", or a learned weighted "sum".
        normalise: the class token, and each block's tokens together, to unit norm.
    Attributes:
        weight: (C, F), F = W * (1 + depth * q), or W * (1 + depth) for "mean" and "sum"; drawn from N(0, 2 / C) with
            torch's global stream. bias: (C,), -log 99.
        combine: (depth, q), ones at first, for "sum"; otherwise None.
        kept: (F,) bool, saved where `keep` is below 1. ranking: whether training ranks the features.
    Raises:
        InputError: an unknown `read`.
    Source: of the selection, Head2Toe (Evci et al., ICML 2022): group lasso, and the largest norms over all classes.
    """

    knows_classes, unit_norm, joint = True, False, False

    def __init__(self, queries: QueryReader, num_classes: int, keep: float = 1.0, read: str = "all",
                 normalise: bool = True):
        super().__init__()
        if read not in READS:
            raise InputError(f"Of a block's queries a classifier reads {', '.join(READS[:-1])} or {READS[-1]}, got "
                             f"{read!r}.")
        depth, q, W = queries.tokens.shape
        device = queries.tokens.device
        self._queries = (queries,)                                      # in a tuple, so no part of this module
        self.read, self.normalise, self.keep, self.ranking = read, normalise, keep, False
        self.weight = nn.Parameter(torch.empty(num_classes, W * (1 + depth * (q if read == "all" else 1)),
                                               device=device))
        self.bias = nn.Parameter(torch.empty(num_classes, device=device))
        self.combine = nn.Parameter(torch.ones(depth, q, device=device)) if read == "sum" else None
        self.register_buffer("kept", torch.ones_like(self.weight[0], dtype=torch.bool) if keep < 1 else None)
        self.draw()

    @torch.no_grad()
    def draw(self) -> None:
        """Draw the classifier."""
        nn.init.kaiming_normal_(self.weight, mode="fan_out")
        self.bias.fill_(-math.log(99))

    def lasso(self) -> Tensor:
        """(): sum over the features of the norms of their weights over all classes."""
        return self.weight.norm(dim=0).sum()

    @torch.no_grad()
    def select(self) -> None:
        """Keep the share `keep` of features with the largest norms, and draw a new classifier for them."""
        best = self.weight.norm(dim=0).topk(max(1, int(self.keep * self.weight.shape[1]))).indices
        self.kept.fill_(False)[best] = True
        self.draw()

    def forward(self, image_features: Tensor, text_features: None, clip: FrozenCLIP) -> Tensor:
        """(B, W), after the tower's last norm -> (B, C)."""
        read = self._queries[0].taken()                                                       # (B, depth, q, W)
        if self.read == "mean":
            read = read.mean(dim=2)
        elif self.read == "sum":
            read = torch.einsum("lq,blqw->blw", self.combine, read)
        read = read.flatten(2)                                                                # (B, depth, q * W or W)
        if self.normalise:
            image_features, read = F.normalize(image_features, dim=-1), F.normalize(read, dim=-1)
        features = torch.cat([image_features, read.flatten(1)], dim=1)                        # (B, F)
        if self.kept is not None:
            features = features * self.kept
        return F.linear(features, self.weight, self.bias)
