"""One run in several processes, started by torchrun: who they are, what they tell each other, and how they end.

Nothing here does anything in a program of one process. CPU tensors travel by gloo, those of GPUs by NCCL.
"""
from __future__ import annotations

import atexit
import contextlib
import datetime
import os
import random
import sys
import time
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from dassl import stop

from .errors import UserError
from .tools import set_random_seed

_NAMES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_PATIENCE = datetime.timedelta(hours=1)     # for the others; the end of a process is seen at once
_TIME_TO_SPEAK = 2.0                        # seconds, for the one that tells
_TIME_TO_NOTICE = 0.1                       # seconds, until the closed connection of a process that is gone is seen
_NO_MESSAGE = 2 ** 20                       # a tag that nothing is sent with
_REPORTED, _ERROR = "dassl/reported", "dassl/error"

_started = _alone = False


class OtherProcessEnded(UserError):
    """Another process of this run is gone."""


def requested() -> bool:
    """Whether this program was started as one of several processes."""
    return all(os.environ.get(name) for name in _NAMES) and int(os.environ["WORLD_SIZE"]) > 1


def rank() -> int:
    """This process, from 0; 0 also where there is only one."""
    return int(os.environ["RANK"]) if _started else 0


def world_size() -> int:
    """Processes of this run."""
    return int(os.environ["WORLD_SIZE"]) if _started else 1


def device(use_cuda: bool) -> torch.device:
    """The GPU of this process, or the CPU.

    Raises:
        UserError: more processes on this machine than GPUs.
    """
    if not (use_cuda and torch.cuda.is_available()):
        return torch.device("cpu")
    local = int(os.environ.get("LOCAL_RANK", 0)) if _started else 0
    if local >= (count := torch.cuda.device_count()):
        raise UserError(f"Each process takes a GPU of its own; this machine shows {count} and has at least {local + 1} "
                        f"processes. Start torchrun with --nproc_per_node {count}, or set USE_CUDA False.")
    if _started:
        torch.cuda.set_device(local)
    return torch.device("cuda", local)


def quiet() -> None:
    """Of several processes only the first speaks; `processes` lets another one tell its error."""
    if requested() and os.environ["RANK"] != "0":
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - open as long as the process


@contextlib.contextmanager
def processes() -> Iterator[None]:
    """Joins the processes of a run; of all that fail, the first one's error passes, the others end without a word.

    Raises:
        SystemExit: 1, where another process has reported its error.
    """
    global _started
    if not requested():
        yield
        return
    import torch.distributed as dist

    if not dist.is_initialized():       # once in a program: a second group would find the first one's addresses
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=_PATIENCE)
        atexit.register(dist.destroy_process_group)
    _started = True
    try:
        yield
    except (KeyboardInterrupt, stop.Terminated, Exception) as error:
        atexit.unregister(dist.destroy_process_group)       # it would wait for the others
        if not _first_to_tell(error):
            time.sleep(_TIME_TO_SPEAK)      # torchrun ends all of them as soon as one is gone
            sys.exit(1)
        sys.stderr = sys.__stderr__
        raise
    _started = False


@contextlib.contextmanager
def ended_together() -> Iterator[None]:
    """Inside, a SIGTERM that comes because another process is gone is reported as that: torchrun then ends the rest.

    An error that ends this process is reported in full, whatever torchrun sends meanwhile.

    Raises:
        OtherProcessEnded: instead of Terminated, where a process is gone.
    """
    try:
        try:
            yield
        except BaseException:
            if _started:
                stop.is_ending()
            raise
    except stop.Terminated as error:
        if _started and _another_is_gone():
            raise _other_process_ended() from error
        raise


@contextlib.contextmanager
def first_then_others() -> Iterator[None]:
    """What may fetch or write something shared: the first process does it before the others.

    Inside, no process hears of the others.
    """
    global _alone
    if rank() > 0:
        sum_(torch.zeros(1))
    _alone = True
    try:
        yield
    finally:
        _alone = False
    if rank() == 0:
        sum_(torch.zeros(1))


def sum_(values: Tensor) -> Tensor:
    """Every process's tensor becomes the sum over all of them, in place."""
    if _together():
        import torch.distributed as dist

        with _unless_another_ended():
            dist.all_reduce(values)
    return values


def from_first(value):
    """The first process's value: tensors and plain data."""
    return gather(value if rank() == 0 else None)[0] if _together() else value


def gather(value) -> list:
    """Every process's value, in their order: plain data and tensors of the CPU."""
    if not _together():
        return [value]
    import torch.distributed as dist

    found = [None] * world_size()
    with _unless_another_ended():
        dist.all_gather_object(found, value)
    return found


def same_state(modules: Iterable[nn.Module]) -> None:
    """Parameters and buffers become the first process's."""
    if not _together():
        return
    import torch.distributed as dist

    for module in modules:
        for values in (*module.parameters(), *module.buffers()):
            with torch.no_grad(), _unless_another_ended():
                sent = values.contiguous()
                dist.broadcast(sent, 0)
                if sent is not values:
                    values.copy_(sent)


def same_streams() -> None:
    """An unseeded run draws the same numbers in all of its processes."""
    if _together():
        set_random_seed(from_first(random.SystemRandom().randrange(2 ** 31)))


def _together() -> bool:
    return _started and not _alone


@contextlib.contextmanager
def _unless_another_ended() -> Iterator[None]:
    try:
        yield
    except torch.cuda.OutOfMemoryError:         # of this very process
        raise
    except RuntimeError as error:
        raise _other_process_ended() from error


def _other_process_ended() -> OtherProcessEnded:
    return OtherProcessEnded(_first_error() or "Another process of this run ended silently, perhaps killed for lack of "
                             f"memory; so process {rank() + 1} of {world_size()} ends, too. --resume with the same "
                             "command resumes from the last checkpoint.")


def _another_is_gone() -> bool:
    """Whether the connection to a process is closed; one that is busy, or waits for this one, is not gone."""
    import torch.distributed as dist

    time.sleep(_TIME_TO_NOTICE)
    try:
        for other in set(range(world_size())) - {rank()}:
            dist.irecv(torch.empty(1), other, tag=_NO_MESSAGE)      # a closed connection refuses it at once
    except RuntimeError:
        return True
    return False


def _store():
    from torch.distributed.distributed_c10d import _get_default_store

    return _get_default_store()


def _first_to_tell(error: BaseException) -> bool:
    try:
        if _store().add(_REPORTED, 1) > 1:
            return False
        _store().set(_ERROR, f"Process {rank() + 1} of {world_size()} ended: {error or type(error).__name__}")
    except RuntimeError:                # torchrun itself is gone, and the store with it
        pass
    return True


def _first_error() -> str:
    with contextlib.suppress(RuntimeError):
        if _store().check([_ERROR]):
            return _store().get(_ERROR).decode()
    return ""
