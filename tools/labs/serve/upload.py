"""What of a browser's upload is taken for an image: known formats, so many bytes, so many pixels."""
from __future__ import annotations

import io

from PIL import Image

from dassl.utils.tools import to_rgb

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")     # of several pictures the first counts
MAX_BYTES = 20 * 2 ** 20
MAX_PIXELS = 50_000_000                                 # told by the file's head, before anything is unpacked


class Refused(Exception):
    """An upload that is not looked at.

    Attributes:
        status: of the HTTP reply.
    """

    def __init__(self, status: int, reason: str):
        super().__init__(reason)
        self.status = status


def decode(content: bytes) -> Image.Image:
    """An RGB image, upright.

    Raises:
        Refused: no such image, or a larger one.
    """
    known = ", ".join(FORMATS)
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise too_many_pixels() from error
    except Exception as error:  # PIL raises many types for what is no image
        raise Refused(415, f"Unsupported image format. Supported: {known}.") from error
    if image.width * image.height > MAX_PIXELS:
        raise too_many_pixels()
    try:
        return to_rgb(image)
    except Exception as error:  # likewise for a damaged one
        raise Refused(422, "This image is damaged.") from error


def too_many_bytes() -> Refused:
    return Refused(413, f"The image is too large; the limit is {MAX_BYTES >> 20} MiB.")


def too_many_pixels() -> Refused:
    return Refused(413, f"The image is too large; the limit is {MAX_PIXELS // 10 ** 6} million pixels.")
