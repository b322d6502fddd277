"""Out of memory is met once: the text goes through its tower in smaller pieces, which give the same result."""
from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import torch

from clip import FrozenCLIP
from dassl.utils import UserError
from trainers.errors import is_out_of_memory

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

_FIRST_LIMIT = 8192                     # tokens, where there was no limit before


def with_less_memory_if_need_be(clip: FrozenCLIP | None, compute: Callable[[], Result], again: bool = False) -> Result:
    """`compute()`; if memory runs out, once more with half of `clip.max_tokens`, which then stays.

    Args:
        clip: encodes text in `compute`; None where no text is, so that nothing can be halved.
        again: memory has run out before.
    Raises:
        UserError: memory runs out again, or nothing can be halved.
    """
    try:
        return compute()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        if clip is None or again:
            where = f"with text in pieces of {clip.max_tokens} tokens" if again else "in a training step"
            raise UserError(f"Memory ran out {where} ({str(error).splitlines()[0]}). Set a smaller "
                            f"DATALOADER.TRAIN_X.BATCH_SIZE{' or TRAIN.MAX_TOKENS' if again else ''}, or free memory "
                            "that other programs hold.") from error
    clip.max_tokens = max(1, clip.max_tokens // 2) if clip.max_tokens else _FIRST_LIMIT
    logger.warning("Out of memory: text is encoded in pieces of %d tokens from now on, a little slower, with the same "
                   "result. TRAIN.MAX_TOKENS %d starts like this.", clip.max_tokens, clip.max_tokens)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return with_less_memory_if_need_be(clip, compute, again=True)
