"""Errors of towers and bricks, and of memory, as errors that a user can fix."""
from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from clip import InputError
from dassl.utils import UserError


@contextlib.contextmanager
def refusal_as_user_error() -> Iterator[None]:
    """Converts InputError to UserError inside."""
    try:
        yield
    except InputError as error:
        raise UserError(str(error)) from error


@contextlib.contextmanager
def as_user_error() -> Iterator[None]:
    """Converts InputError to UserError inside, and running out of memory too."""
    try:
        with refusal_as_user_error():
            yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(f"There is not enough memory to build the model ({str(error).splitlines()[0]}). Use a smaller "
                        "backbone, fewer learned tokens or fewer classes, or free memory that other programs hold."
                        ) from error


def is_out_of_memory(error: RuntimeError) -> bool:
    """On a GPU it has a class of its own; a CPU's is known by its text alone."""
    return isinstance(error, torch.cuda.OutOfMemoryError) or "can't allocate memory" in str(error)
