"""Files that are written whole or not at all, also when the process is killed or the disk is full."""
from __future__ import annotations

import os
import tempfile
from pathlib import Path

_ENDING = ".part"


def write_whole(path: str | os.PathLike, content: bytes | str) -> None:
    """Write to a temporary file and rename; text in UTF-8. Makes the folder if need be. On failure the old stays."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", suffix=_ENDING, delete=False) as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.chmod(file.name, 0o644)
            os.replace(file.name, path)
        except BaseException as error:
            os.unlink(file.name)
            if isinstance(error, OSError) and error.filename is None:
                error.filename = str(path)              # writing to an open file names none
            raise


def remove_parts(folder: str | os.PathLike) -> None:
    """Remove what killed processes were writing in a folder and in its folders."""
    for pattern in (f".*{_ENDING}", f"*/.*{_ENDING}"):
        for path in Path(folder).glob(pattern):
            path.unlink(missing_ok=True)
