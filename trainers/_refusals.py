"""What the towers and bricks refuse is the user's to mend: a paragraph, not a traceback."""
from __future__ import annotations

import contextlib
from collections.abc import Iterator

from clip import InputError
from dassl.utils import UserError
from trainers._memory import is_out_of_memory


@contextlib.contextmanager
def told_to_the_user() -> Iterator[None]:
    """Inside, an InputError becomes a UserError, and so does running out of memory."""
    try:
        yield
    except InputError as error:
        raise UserError(str(error)) from error
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(f"There is not enough memory to build the model ({str(error).splitlines()[0]}). Use a smaller "
                        "backbone, fewer learned tokens or fewer classes, or free memory that other programs hold."
                        ) from error
