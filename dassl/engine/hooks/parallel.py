"""Data-parallel training: the same result as in one process, to rounding.

All processes build the same trainer and draw from the same random streams. Of each training batch a process takes its
share of the images (`dassl.data.sharing`); before each step of an optimiser the gradients of the few learned numbers
are averaged, weighted by the images that they come from. That is exact, also for a batch that does not divide, for
every loss that is a mean over images, or has no images in it, or is a sum of such terms.

DistributedDataParallel would weigh all processes alike, which is wrong for a last batch that does not divide, and it
wraps a module's forward, whereas here several prompts with optimisers of their own share frozen towers; the names in
checkpoints would change too. It hides communication behind a large backward pass: of a prompt it has nothing to hide.
"""
from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from dassl.data.sharing import Share, in_turns
from dassl.utils import distributed
from dassl.utils.errors import UserError

from . import Hook, progress

logger = logging.getLogger(__name__)


def check(trainer) -> None:
    """Raises UserError for a trainer that cannot learn in several processes."""
    if distributed.world_size() == 1 or not trainer.max_epoch:
        return
    reason = trainer.one_process_only
    if any(isinstance(module, _BatchNorm) and any(p.requires_grad for p in module.parameters())
           for model in _models(trainer) for module in model.modules()):
        reason = reason or "it learns with batch normalisation, which compares the images of a batch"
    if reason:
        raise UserError(f"{type(trainer).__name__} trains in one process: {reason}. This run has "
                        f"{distributed.world_size()}; start it with python instead of torchrun (--nproc_per_node 1).")


class Parallel(Hook):
    """Keeps the processes of a run alike."""

    def before_epochs(self, trainer) -> None:
        """The same epoch, prompts and random streams everywhere.

        Raises:
            UserError: some processes resumed and others did not.
        """
        if distributed.world_size() == 1:
            return
        epochs = distributed.gather(trainer.start_epoch)
        if len(set(epochs)) > 1:
            raise UserError(f"The processes of this run would start after different epochs: {epochs}. Every machine "
                            "reads the checkpoints of --resume: name a folder that all of them share.")
        distributed.same_state(_models(trainer))
        if trainer.device.type == "cuda":       # checkpoints hold the first process's stream
            torch.cuda.set_rng_state(distributed.from_first(torch.cuda.get_rng_state()))

    def after_batches(self, trainer) -> None:
        """The same prompts everywhere, and the same random numbers next.

        Raises:
            UserError: the prompts differ: the trainer steps an optimiser whose gradients were not averaged.
        """
        if distributed.world_size() == 1:
            return
        digests = distributed.gather(_digest(_models(trainer)))
        if len(set(digests)) > 1:
            raise UserError(f"{type(trainer).__name__} has learned different prompts in the processes of this run: it "
                            "steps an optimiser by itself. Use model_backward_and_update() or finish_step(), or train "
                            "in one process.")
        own = torch.get_rng_state()
        first = distributed.from_first(own)
        if any(distributed.gather(not torch.equal(own, first))):
            logger.warning("%s draws random numbers that depend on how many images a process has: this run differs "
                           "from that of a single process, and is as good", type(trainer).__name__)
            torch.set_rng_state(first)


def average_gradients(trainer, names: str | list[str] | None = None) -> None:
    """Of what is optimised in the registered models: the mean over the images of the whole batch, in every process."""
    if distributed.world_size() == 1:
        return
    optims = [learner.optim for learner in trainer.registered(names) if learner.optim is not None]
    learned = [p for optim in optims for group in optim.param_groups for p in group["params"] if p.grad is not None]
    if not learned:
        return
    mean = _mean(torch.cat([p.grad.flatten() for p in learned]), trainer.batch_share)
    for p, grad in zip(learned, mean.split([p.numel() for p in learned]), strict=True):
        p.grad.copy_(grad.view_as(p.grad))


def average(values: dict, share: Share | None) -> dict:
    """Losses of a batch: the mean over its images in all processes."""
    if distributed.world_size() == 1:
        return values
    mean = _mean(torch.tensor([float(v) for v in values.values()], dtype=torch.float64), share)
    return dict(zip(values, mean.tolist(), strict=True))


def _mean(values: Tensor, share: Share | None) -> Tensor:
    """(n,) of every process -> (n,), weighted by the images that they come from; without a share, alike."""
    size = 1 if share is None else share.size
    weighted = torch.cat([values, values.new_ones(1)])
    weighted = weighted * size if size else torch.zeros_like(weighted)       # the placeholder for none may be infinite
    distributed.sum_(weighted)
    return weighted[:-1] / weighted[-1]


def _models(trainer) -> list[nn.Module]:
    return [learner.model for learner in trainer.registered()]


def _digest(models: list[nn.Module]) -> str:
    digest = hashlib.sha256()
    for model in models:
        for values in (*model.parameters(), *model.buffers()):
            digest.update(values.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def answers(trainer, loader, label: str) -> Iterator[tuple[dict, Tensor, Tensor]]:
    """Batches of a split, in its order, each with the trainer's output and labels.

    Several processes take whole batches in turn and tell each other: every one of them sees all, each image once, and
    from equal batches come equal scores.

    Raises:
        UserError: several processes, and a trainer that learns from each image before it sees the next.
    """
    if trainer.adapts == "stream" and distributed.world_size() > 1:
        raise UserError(f"{type(trainer).__name__} learns from the test images one after the other, in one process. "
                        f"This run has {distributed.world_size()}; start it with python instead of torchrun "
                        "(--nproc_per_node 1).")
    with in_turns(loader) if distributed.world_size() > 1 else contextlib.nullcontext(0) as rounds:
        batches = iter(progress.over(loader, label, learns=bool(trainer.adapts)))
        if not rounds:
            yield from (_answer(trainer, batch) for batch in batches)
            return
        for _ in range(rounds):
            mine = next(batches, None)
            if mine is not None:
                batch, output, labels = _answer(trainer, mine)
                output = output[0] if isinstance(output, (tuple, list)) else output
                kept = {k: batch[k] for k in ("impath", "index", "domain") if k in batch}
                mine = [{**kept, "label": labels.cpu()}, output.cpu(), labels.cpu()]
            yield from (tuple(found) for found in distributed.gather(mine) if found is not None)


def _answer(trainer, batch: dict) -> tuple[dict, Tensor, Tensor]:
    trainer.call_hooks("before_answer", batch)
    images, labels = trainer.parse_batch_test(batch)
    return batch, trainer.model_inference(images), labels


class _DrawsForTheBatch(TorchFunctionMode):
    """Random numbers for each image of a share are those that one process draws for the whole batch.

    Dropout and `*_like` draws whose first dimension is the share are drawn for the batch, and the share is cut out.
    """

    def __init__(self, share: Share):
        super().__init__()
        self.share = share

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        values = args[0] if args else kwargs.get("input")
        if func not in _DRAWS or not isinstance(values, Tensor) or values.dim() == 0 \
                or len(values) != max(self.share.size, 1):
            return func(*args, **kwargs)
        whole = torch.ones_like(values[:1]).expand(self.share.total, *values.shape[1:])   # strided as a prompt is
        whole = whole if values.stride(0) == 0 else whole.contiguous()
        drawn = func(whole, *args[1:], **{k: v for k, v in kwargs.items() if k not in ("input", "inplace")})
        drawn = drawn[self.share.start:self.share.start + len(values)]
        return values * drawn if func is F.dropout else drawn


_DRAWS = (F.dropout, torch.rand_like, torch.randn_like)


def draws_of_the_batch(share: Share | None) -> contextlib.AbstractContextManager:
    """Inside, random numbers for the images of a share are those of the whole batch."""
    return contextlib.nullcontext() if share is None else _DrawsForTheBatch(share)
