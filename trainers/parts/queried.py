"""Prompts that are chosen or made for each image by a query: the class token of the tower without them.

Source: L2P (Wang et al., CVPR 2022), DualPrompt (Wang et al., ECCV 2022), CODA-Prompt (Smith et al., CVPR 2023); pools
with JH-LEE-KR/l2p-pytorch f7bc994, keys and values with GT-RIPL/CODA-Prompt 6417d4f.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip import FrozenCLIP, InputError
from trainers.parts.heads import LinearHead
from trainers.parts.prompted_model import Output, PromptedModel
from trainers.parts.visual_prompt import MOST_TOKENS


class QueriedModel(PromptedModel):
    """Asks the image tower twice: without prompts for the query, then with those that it chooses.

    Args:
        visual: a tuner with `ask(query)`, which takes (B, W) and gives what goes into `aux`; see `PromptedModel` for
            the others.
    """

    def forward(self, images: Tensor) -> Output:
        out = super().forward(images)
        out.aux.update(self._found)
        self._found = {}
        return out

    def image_features(self, images: Tensor, unit_norm: bool = True) -> Tensor:
        with torch.no_grad():
            query = self.clip.encode_image(images, joint=False, unit_norm=False)              # (B, W)
        self._found = self.brick("visual").ask(query)
        return super().image_features(images, unit_norm)


class MeanTokenHead(LinearHead):
    """A linear classifier of the mean of the tokens that are read, in the tower's width; zero at first (L2P)."""

    def __init__(self, clip: FrozenCLIP, num_classes: int):
        super().__init__(clip, num_classes, joint=False)

    def forward(self, image_features: Tensor, text_features: None, clip: FrozenCLIP) -> Tensor:
        """(B, L, W) -> (B, C)."""
        return super().forward(image_features.mean(dim=1), None, clip)


class PromptPool(nn.Module):
    """A tuner: an image takes the k prompts of M whose keys are nearest to its query, behind its class token.

    Args:
        size, length, top: M, L tokens each, k.
        batchwise: all images of a batch take the k prompts that most of them chose, so an answer depends on the others.
        per_task: in training, all images of a task take its own k prompts, which start as copies of the former task's.
    Attributes:
        prompts: (M, L, W). keys: (M, W); both uniform in [-1, 1) at first, from torch's global stream.
        task: () int64, the present one, -1 where none has begun; with `per_task`.
        position: (k * L, W), added to the tokens: the class token's position for each, not learned.
    Raises:
        InputError: an image tower without tokens; no prompt or token; more prompts of an image than there are.
    """

    def __init__(self, clip: FrozenCLIP, size: int = 10, length: int = 5, top: int = 5, batchwise: bool = False,
                 per_task: bool = False):
        super().__init__()
        clip.require_tokens("A pool of prompts")
        if size < 1 or length < 1:
            raise InputError(f"A pool needs at least 1 prompt of at least 1 token, got {size} of {length}.")
        if not 1 <= top <= size:
            raise InputError(f"An image takes 1 to {size} prompts of a pool of {size}, got {top}.")
        if top * length > MOST_TOKENS:
            raise InputError(f"An image takes at most {MOST_TOKENS} tokens, got {top} prompts of {length}.")
        self.top, self.batchwise, self.asked = top, batchwise, None
        W, device = clip.vision_width, clip.logit_scale.device
        self.prompts = nn.Parameter(torch.empty(size, length, W, device=device).uniform_(-1, 1))
        self.keys = nn.Parameter(torch.empty(size, W, device=device).uniform_(-1, 1))
        self.register_buffer("position", clip.visual.positional_embedding[:1].detach().repeat(top * length, 1),
                             persistent=False)
        self.now = -1                       # as `task`, without reading it from a device
        if per_task:
            self.register_buffer("task", torch.tensor(-1, device=device))
            self.register_load_state_dict_post_hook(lambda module, _: setattr(module, "now", int(module.task)))

    @torch.no_grad()
    def begin(self, task: int, tasks: int) -> None:
        """With `per_task`, the prompts of a task but the first become those of the task before; keys stay.

        Raises:
            InputError: fewer prompts than the tasks take.
        """
        if not hasattr(self, "task"):
            return
        if tasks * self.top > len(self.prompts):
            raise InputError(f"{tasks} tasks of {self.top} prompts each need a pool of at least {tasks * self.top}, "
                             f"got {len(self.prompts)}.")
        self.task.fill_(task)
        self.now = task
        if task:
            self.prompts[self._own(task)] = self.prompts[self._own(task - 1)]

    def _own(self, task: int) -> slice:
        return slice(task * self.top, (task + 1) * self.top)

    def ask(self, query: Tensor) -> dict[str, Tensor]:
        """(B, W) -> "chosen" (B, k), "similarity" () of the chosen keys: their sum, the mean over the images."""
        cosines = F.normalize(query, dim=-1) @ F.normalize(self.keys, dim=-1).t()             # (B, M)
        self.asked = cosines.topk(self.top, dim=1).indices                                    # (B, k)
        if self.training and self.now >= 0:
            own = torch.arange(len(self.keys), device=query.device)[self._own(self.now)]
            self.asked = own.expand(len(query), -1)
        elif self.batchwise:
            # As the authors pad and order it, on which ties depend: the first that is chosen fills what is left.
            chosen, votes = self.asked.unique(return_counts=True)
            left = (0, len(self.keys) - len(chosen))
            chosen, votes = F.pad(chosen, left, value=int(chosen[0])), F.pad(votes, left)
            self.asked = chosen[votes.topk(self.top).indices].expand(len(query), -1)
        return {"chosen": self.asked, "similarity": cosines.gather(1, self.asked).sum() / len(query)}

    def enter(self, block: int, x: Tensor) -> Tensor:
        """See `clip.tuning.Tuner`: k * L tokens more before the norm in front of the first block."""
        if block != -1:
            return x
        tokens = self.prompts[self.asked].flatten(1, 2) + self.position                       # (B, k*L, W)
        return torch.cat([x[:, :1], tokens.to(x.dtype), x[:, 1:]], dim=1)


class _Prefixes(nn.Module):
    """What tuners with keys and values share.

    Attributes:
        asked: (B, W), queries of the images that come next.
    """

    def __init__(self, clip: FrozenCLIP):
        super().__init__()
        clip.require_tokens("A pool of keys and values")
        self.asked, self.device = None, clip.logit_scale.device

    def ask(self, query: Tensor) -> dict[str, Tensor]:
        self.asked = query
        return {}

    def _new(self, *shape: int) -> nn.Parameter:
        return nn.Parameter(torch.rand(shape, device=self.device))


def halves(prompt: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 2p, W) -> keys and values, (B, p, W) each."""
    keys, values = prompt.chunk(2, dim=1)
    return keys, values


def check_blocks(blocks: tuple[int, ...], clip: FrozenCLIP, what: str) -> None:
    """Raises InputError unless they are different blocks of the image tower, from 0."""
    if len(set(blocks)) != len(blocks) or not set(blocks) <= set(range(clip.depth)):
        raise InputError(f"{what} act in different blocks of 0 to {clip.depth - 1}, got {tuple(blocks)}.")


class DualPrefixes(_Prefixes):
    """A tuner: keys and values that all images share in some blocks, and a task's own in others.

    In training, the present task's; in evaluation, in each block those of the task whose key is nearest to the query.

    Args:
        shared, expert: blocks, from 0. pool: tasks that have some of their own. lengths: of a shared prompt and of an
            expert one; half of it are keys.
    Attributes:
        task: () int64, the present one.
        shared: (blocks, length, W). expert: (blocks, pool, length, W). keys: (blocks, pool, W); uniform in [0, 1).
    Raises:
        InputError: blocks that the tower does not have; odd lengths; no pool.
    """

    def __init__(self, clip: FrozenCLIP, shared: tuple[int, ...], expert: tuple[int, ...], pool: int,
                 lengths: tuple[int, int]):
        super().__init__(clip)
        check_blocks((*shared, *expert), clip, "Shared and expert prompts")
        if not shared or not expert:
            raise InputError(f"Shared and expert prompts need a block each, got {tuple(shared)} and {tuple(expert)}.")
        if pool < 1 or any(length < 2 or length % 2 for length in lengths):
            raise InputError("Half of a prompt are keys and half values, so its length must be even and at least 2, "
                             f"and the pool at least 1; got lengths {tuple(lengths)} and a pool of {pool}.")
        self.shared_at, self.expert_at, W = tuple(shared), tuple(expert), clip.vision_width
        self.shared, self.expert = self._new(len(shared), lengths[0], W), self._new(len(expert), pool, lengths[1], W)
        self.keys = self._new(len(expert), pool, W)
        self.now = 0                        # as `task`, without reading it from a device
        self.register_buffer("task", torch.zeros((), dtype=torch.int64, device=self.device))
        self.register_load_state_dict_post_hook(lambda module, _: setattr(module, "now", int(module.task)))

    def begin(self, task: int, tasks: int) -> None:
        self.task.fill_(task)
        self.now = task

    def ask(self, query: Tensor) -> dict[str, Tensor]:
        """(B, W) -> "distance" (): of the queries from the present task's keys, summed over blocks and images."""
        super().ask(query)
        return {"distance": (1 - self._cosines(self.keys[:, self.now])).sum()}

    def _cosines(self, keys: Tensor) -> Tensor:
        """Keys (..., W) -> (..., B)."""
        return F.normalize(keys, dim=-1) @ F.normalize(self.asked, dim=-1).t()

    def prefix(self, block: int, x: Tensor) -> tuple[Tensor, Tensor] | None:
        """See `clip.tuning.Tuner`."""
        if block in self.shared_at:
            return halves(self.shared[self.shared_at.index(block)].expand(x.shape[0], -1, -1))
        if block not in self.expert_at:
            return None
        row = self.expert_at.index(block)
        if self.training:
            return halves(self.expert[row, self.now].expand(x.shape[0], -1, -1))
        seen = self.keys[row, :self.now + 1]
        return halves(self.expert[row, self._cosines(seen).argmax(dim=0)])                    # (B, p, W) each


class ComposedPrefixes(_Prefixes):
    """A tuner: keys and values that are a sum of M components, weighted by how near the query is to their keys.

    Every task trains components of its own; those of former tasks stay as they are, those of later ones are not there.

    Args:
        blocks: from 0. components: M, in all. length: of a component; half of it are keys.
    Attributes:
        components: (blocks, M, length, W). keys, attention: (blocks, M, W): the weight of a component is the cosine of
            its key with query * attention. Orthonormal within a block, as far as the width allows.
        first, end: () int64: the present task's components. span: both, without reading them from a device.
    Raises:
        InputError: blocks that the tower does not have; an odd length; no components.
    """

    def __init__(self, clip: FrozenCLIP, blocks: tuple[int, ...], components: int, length: int):
        super().__init__(clip)
        check_blocks(blocks, clip, "Composed prompts")
        if components < 1 or length < 2 or length % 2 or not blocks:
            raise InputError("Half of a component are keys and half values, so its length must be even and at least 2, "
                             f"and there must be a component and a block; got length {length}, {components} components "
                             f"and blocks {tuple(blocks)}.")
        self.blocks, W = tuple(blocks), clip.vision_width
        self.components = self._new(len(blocks), components, length, W)
        self.keys, self.attention = (self._new(len(blocks), components, W) for _ in range(2))
        for name, value in (("first", 0), ("end", components)):
            self.register_buffer(name, torch.tensor(value, device=self.device))
        self.register_load_state_dict_post_hook(
            lambda module, _: setattr(module, "span", (int(module.first), int(module.end))))
        self.begin(0, 1)

    @torch.no_grad()
    def begin(self, task: int, tasks: int) -> None:
        """Components of a task are drawn: orthogonal to those before and to each other.

        Raises:
            InputError: fewer components than tasks.
        """
        share = self.components.shape[1] // tasks
        if not share:
            raise InputError(f"Each of {tasks} tasks needs a component of its own, got {self.components.shape[1]}.")
        self.first.fill_(task * share)
        self.end.fill_((task + 1) * share)
        self.span = task * share, (task + 1) * share
        for values in (self.components.flatten(2), self.keys, self.attention):
            for rows in values:
                for row in range(*self.span):
                    rows[row] = _orthogonal_to(rows[:row])

    def ask(self, query: Tensor) -> dict[str, Tensor]:
        """(B, W) -> "overlap" (): how far the components, keys and attentions are from orthonormal."""
        super().ask(query)
        parts = [self._present(values) for values in (self.keys, self.attention, self.components.flatten(2))]
        return {"overlap": sum((_gram(part) - torch.eye(part.shape[1], device=part.device)).square().mean(dim=(1, 2))
                               .sum() for part in parts)}

    def _present(self, values: Tensor) -> Tensor:
        """(blocks, M, ...) -> those of the tasks so far; no gradient reaches those before the present one."""
        first, end = self.span
        return torch.cat([values[:, :first].detach(), values[:, first:end]], dim=1)

    def prefix(self, block: int, x: Tensor) -> tuple[Tensor, Tensor] | None:
        """See `clip.tuning.Tuner`."""
        if block not in self.blocks:
            return None
        row = self.blocks.index(block)
        keys, attention, components = (self._present(values[row:row + 1])[0]
                                       for values in (self.keys, self.attention, self.components))
        asked = F.normalize(self.asked.unsqueeze(1) * attention, dim=-1)                      # (B, m, W)
        weights = (asked * F.normalize(keys, dim=-1)).sum(dim=-1)                             # (B, m)
        return halves(torch.einsum("bm,mlw->blw", weights, components))


def _gram(values: Tensor) -> Tensor:
    """(blocks, m, W) -> (blocks, m, m)."""
    return values @ values.transpose(1, 2)


def _orthogonal_to(rows: Tensor) -> Tensor:
    """A unit vector (W,) drawn from torch's global stream; where W rows or more leave no room, not orthogonal.

    Rows that were trained are neither of unit norm nor orthogonal to each other.
    """
    drawn = torch.randn(rows.shape[1], device=rows.device)
    if 0 < len(rows) < rows.shape[1]:
        basis = torch.linalg.qr(rows.t()).Q                                                   # (W, rows)
        for _ in range(2):                                  # once more, against rounding
            drawn = drawn - basis @ (basis.t() @ drawn)
    return F.normalize(drawn, dim=-1)
