"""One file out of a zip on a server, without the rest of it: only the zip's directory and that member are sent."""
from __future__ import annotations

import io
import urllib.request
import zipfile

_BLOCK_BYTES = 1 << 20


def read_member(url: str, member: str, timeout: float) -> bytes:
    """The content of the file with that name, in whatever folder of the zip it is.

    Raises:
        KeyError: the zip has no such file. ValueError: the server gives no parts of files.
        zipfile.BadZipFile: not a zip. OSError: the network.
    """
    with zipfile.ZipFile(io.BufferedReader(_Remote(url, timeout), _BLOCK_BYTES)) as archive:
        found = next((name for name in archive.namelist() if name.rpartition("/")[2] == member), member)
        return archive.read(found)


class _Remote(io.RawIOBase):
    """A file on a server that gives ranges; read-only."""

    def __init__(self, url: str, timeout: float):
        self.url, self.timeout, self.position = url, timeout, 0
        with self._ask(0, 0) as reply:
            self.size = int(reply.headers["Content-Range"].rpartition("/")[2])

    def _ask(self, first: int, last: int):
        request = urllib.request.Request(self.url, headers={"Range": f"bytes={first}-{last}"})
        reply = urllib.request.urlopen(request, timeout=self.timeout)
        if reply.status != 206:
            reply.close()
            raise ValueError(f"{self.url} is served whole only")
        return reply

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.size}[whence]
        return self.position

    def tell(self) -> int:
        return self.position

    def readinto(self, buffer) -> int:
        count = min(len(buffer), self.size - self.position)
        if count <= 0:
            return 0
        with self._ask(self.position, self.position + count - 1) as reply:
            content = reply.read()
        buffer[:len(content)] = content
        self.position += len(content)
        return len(content)
