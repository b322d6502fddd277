"""Class names from a text file, one per line."""
from __future__ import annotations

from pathlib import Path

from dassl.utils import UserError


def read_class_names(file: Path) -> list[str]:
    """The lines that are not empty, without the space around them; a byte order mark is not a part of the first.

    Raises:
        UserError: the file cannot be read, or is not UTF-8.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}). It should hold class names, one per "
                        "line.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 text ({error.reason} at byte {error.start}). It should hold class "
                        "names, one per line; save it again with that encoding.") from error
    return [line.strip() for line in lines if line.strip()]
