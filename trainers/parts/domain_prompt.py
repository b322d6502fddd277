"""Context words that a network makes of a batch of images of one domain, the same for all of them.

Source: AP / DPL (Zhang et al., 2021, 2111.12853), shogi880/DPLCLIP 53b1ff4 domainbed/algorithms.py DPLCLIP and
networks.py MLP.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip import FrozenCLIP, InputError, TextTokens
from trainers.parts.text_prompt import TextPrompt


class DomainNetwork(nn.Module):
    """(B, D) image features as the tower gives them -> (B, n * W).

    Xavier-uniform weights, biases 0.01; dropout before each activation.

    Args:
        hidden: width of the layers between; depth: number of all layers, at least 2.
    """

    def __init__(self, D: int, out: int, hidden: int, depth: int, dropout: float):
        super().__init__()
        if depth < 2 or hidden < 1 or not 0 <= dropout < 1:
            raise InputError("A domain network needs at least 2 layers, a width of at least 1 and dropout in [0, 1), "
                             f"got {depth}, {hidden}, {dropout}.")
        self.input, self.output = nn.Linear(D, hidden), nn.Linear(hidden, out)
        self.hiddens = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(depth - 2))
        self.dropout = dropout
        for layer in (self.input, *self.hiddens, self.output):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.constant_(layer.bias, 0.01)

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.input, *self.hiddens):
            x = F.dropout(layer(x), self.dropout, self.training).relu()
        return self.output(x)


class DomainPrompt(TextPrompt):
    """A text prompt "[words] [class]." whose n words are the mean of what a network makes of each image.

    Attributes:
        network: its input are image features that are not normalised.
        words: () int64, n, saved with the network.
    """

    conditional = True

    def __init__(self, clip: FrozenCLIP, classnames: list[str], n_ctx: int, hidden: int, depth: int, dropout: float):
        super().__init__(clip, classnames, n_ctx)
        del self.ctx
        self.network = DomainNetwork(clip.embed_dim, n_ctx * clip.text_width, hidden, depth, dropout)
        self.register_buffer("words", torch.tensor(n_ctx))
        self.register_load_state_dict_pre_hook(_with_words)

    def forward(self, image_features: Tensor) -> TextTokens:
        """(B, D) of one domain -> the C prompts behind one prefix."""
        return self.tokens(self.of_each(image_features).mean(0))

    def of_domains(self, image_features: Tensor, domains: Tensor, count: int) -> Tensor:
        """(B, D) and their domains (B,) in [0, count) -> words (count, n, W); one without images has those of all."""
        member = F.one_hot(domains, count).t().to(image_features.dtype)                          # (count, B)
        member = torch.where(member.sum(1, keepdim=True) > 0, member, torch.ones_like(member))
        return ((member / member.sum(1, keepdim=True)) @ self.of_each(image_features).flatten(1)).unflatten(
            1, (self.n_ctx, -1))

    def of_each(self, image_features: Tensor) -> Tensor:
        """(B, D) -> (B, n, W)."""
        with torch.autocast(image_features.device.type, enabled=False):
            return self.network(image_features).unflatten(1, (self.n_ctx, -1))


def _with_words(module: DomainPrompt, state: dict, prefix: str, *_) -> None:
    state.setdefault(prefix + "words", torch.tensor(module.n_ctx))    # the authors' checkpoints hold the network alone
