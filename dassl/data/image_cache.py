"""Decoded images kept in memory: a few-shot training set is read from disk and decoded once, not once an epoch."""
from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from PIL import Image
from torch.utils.data import get_worker_info

from dassl.utils.tools import read_image

_BYTES_PER_PIXEL = 4            # what Pillow keeps for RGB
_SHARE_OF_MEMORY = 8


class ImageCache:
    """RGB images of full size by path, up to `limit` bytes; the images after that are decoded at every read.

    Worker processes that are forked share what is in it by then (`fill`). Others fill one each, up to their share.
    """

    def __init__(self, limit: int):
        self.limit, self.used = limit, 0
        self._images: dict[str, Image.Image] = {}
        self._lock = threading.Lock()

    def read(self, path: str) -> Image.Image:
        """The image; the caller must not change it. Raises UserError as `read_image` does."""
        image = self._images.get(path)
        if image is None:
            image = read_image(path)
            self._keep(path, image)
        return image

    def fill(self, paths: Sequence[str]) -> None:
        """Read these images, several at a time."""
        absent = [path for path in dict.fromkeys(paths) if path not in self._images]
        if absent:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                for _ in pool.map(self.read, absent):
                    pass

    def has_room_for(self, paths: Sequence[str], sample: int = 64) -> bool:
        """Whether all these images fit, or are there; estimated by the sizes of `sample` of those that are not."""
        absent = [path for path in dict.fromkeys(paths) if path not in self._images]
        chosen = absent[::max(1, len(absent) // sample)]
        mean = sum(map(_bytes_of_file, chosen)) / max(len(chosen), 1)
        return mean * len(absent) <= self.limit - self.used

    def _keep(self, path: str, image: Image.Image) -> None:
        worker = get_worker_info()
        with self._lock:
            size = _bytes_of(image)
            if path not in self._images and self.used + size <= self.limit // (worker.num_workers if worker else 1):
                self._images[path] = image
                self.used += size

    def __len__(self) -> int:
        return len(self._images)

    def __reduce__(self):
        return ImageCache, (self.limit,)


def build_cache(megabytes: int) -> ImageCache | None:
    """A cache of this size, or of an eighth of this machine's memory if that is less; None for 0."""
    limit = min(megabytes << 20, _memory() // _SHARE_OF_MEMORY)
    return ImageCache(limit) if limit > 0 else None


def _memory() -> int:
    """Bytes of memory of this machine; where it does not tell, 16 GB."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):           # Windows
        return 16 << 30


def _bytes_of(image: Image.Image) -> int:
    return image.width * image.height * _BYTES_PER_PIXEL


def _bytes_of_file(path: str) -> int:
    """Decoded size by the file's header; 0 for a file that will be refused when it is read."""
    try:
        with Image.open(path) as image:
            return _bytes_of(image)
    except Exception:  # whatever is wrong with it, the reader says it
        return 0
