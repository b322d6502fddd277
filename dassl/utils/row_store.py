"""Rows of numbers kept on disk by name, which many runs read and add to at once: features of images.

A file is written whole, never changes, and says by a checksum that it is sound, so nothing has to be locked for a right
answer. What is damaged is removed and computed again.
"""
from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dassl.files.whole import remove_parts, write_whole

logger = logging.getLogger(__name__)
_TYPES = {"float32": np.float32, "float16": np.float16}
_FULL: set[Path] = set()                # of which was said that they have no room


class RowStore:
    """Rows of one width in a folder.

    Args:
        folder: of these rows alone, made when it is needed.
        width: D.
        dtype: in which new rows are kept, "float32" or "float16" (half the space, three digits).
        limit: bytes that the folder above may hold in all; a row that would exceed them is not kept.
    """

    def __init__(self, folder: str | Path, width: int, dtype: str = "float32", limit: float = float("inf")):
        self.folder, self.width, self.dtype, self.limit = Path(folder), width, dtype, limit
        self._headers: dict[Path, dict] = {}

    def read(self, names: Sequence[str]) -> tuple[Tensor, list[int]]:
        """Rows (N, D) float32 by name, and the places of those that are not there, which are zero."""
        place = {name: i for i, name in enumerate(names)}
        rows, missing = torch.zeros(len(names), self.width), set(place)
        for path in sorted(self.folder.glob("*.rows")):
            header = self._header(path)
            wanted = [(i, name) for i, name in enumerate(header["names"]) if name in missing] if header else []
            if wanted and (found := self._rows(path, header)) is not None:
                at = torch.tensor([place[name] for _, name in wanted])
                rows[at] = torch.from_numpy(found[[i for i, _ in wanted]].astype(np.float32))
                missing -= {name for _, name in wanted}
            if not missing:
                break
        return rows, sorted(place[name] for name in missing)

    def add(self, names: Sequence[str], rows: Tensor) -> bool:
        """Keep these rows (N, D); False where there is no room or no way to write, which the log says."""
        values = rows.detach().cpu().numpy().astype(_TYPES[self.dtype])
        data = values.tobytes()
        header = json.dumps({"names": list(names), "width": self.width, "dtype": self.dtype,
                             "crc": _checksum(names, data)})
        path = self.folder / f"{hashlib.sha256(header.encode()).hexdigest()[:32]}.rows"
        try:
            with self._alone(self.folder.parent / "size.lock"):
                size = sum(file.stat().st_size for file in self.folder.parent.rglob("*.rows"))
                if size + len(data) + len(header) > self.limit:
                    level = logging.DEBUG if self.folder in _FULL else logging.WARNING
                    logger.log(level, "%s holds %.0f MB of at most %.0f: more rows are not kept and will be computed "
                               "again", self.folder.parent, size / 2 ** 20, self.limit / 2 ** 20)
                    _FULL.add(self.folder)
                    return False
                write_whole(path, header.encode() + b"\n" + data)
        except OSError as error:
            logger.warning("Did not keep %d rows in %s (%s); they will be computed again", len(rows), self.folder,
                           error)
            return False
        return True

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Inside, no other process computes rows for this folder: it waits, and finds them afterwards."""
        with self._alone(self.folder / "write.lock"):
            with contextlib.suppress(OSError):
                remove_parts(self.folder)
            yield

    @contextlib.contextmanager
    def _alone(self, path: Path) -> Iterator[None]:
        from filelock import FileLock

        lock = FileLock(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except (OSError, NotImplementedError) as error:     # a disk without locks: work may be done twice
            logger.info("No lock in %s (%s)", path.parent, error)
        try:
            yield
        finally:
            lock.release()

    def _header(self, path: Path) -> dict | None:
        if path not in self._headers:
            try:
                with path.open("rb") as file:
                    header = json.loads(line := file.readline())
                    row_bytes = header["width"] * np.dtype(_TYPES[header["dtype"]]).itemsize
                    whole = len(line) + len(header["names"]) * row_bytes == path.stat().st_size
                if not whole or header["width"] != self.width:
                    raise ValueError("its length is not what it says")
                self._headers[path] = {**header, "start": len(line)}
            except FileNotFoundError:
                return None
            except (OSError, ValueError, KeyError, TypeError) as error:
                return self._damaged(path, error)
        return self._headers[path]

    def _rows(self, path: Path, header: dict) -> np.ndarray | None:
        """(n, D) of a whole file; None for a damaged one."""
        try:
            data = path.read_bytes()[header["start"]:]
        except OSError as error:
            return self._damaged(path, error)
        if _checksum(header["names"], data) != header["crc"]:
            return self._damaged(path, ValueError("its checksum is wrong"))
        return np.frombuffer(data, _TYPES[header["dtype"]]).reshape(-1, self.width)

    def _damaged(self, path: Path, error: Exception) -> None:
        logger.warning("Computing rows again: %s is damaged (%s)", path, error)
        self._headers.pop(path, None)
        with contextlib.suppress(OSError):
            path.unlink()


def _checksum(names: Sequence[str], data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(" ".join(names).encode()))
