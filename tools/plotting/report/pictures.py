"""A figure as part of a page: once for a light page and once for a dark one, both inside the HTML."""
from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from ..style import THEMES, Theme, context

SVG_BYTES = 250_000                     # a larger drawing is kept as pixels
DPI = 144                               # of those
PAD = 0.06                              # left around a drawing: inches


@dataclass(frozen=True)
class Picture:
    """Attributes: alt: what it shows, for who cannot see it. light, dark: data URIs. width, height: CSS pixels."""

    alt: str
    light: str
    dark: str
    width: int
    height: int


def picture(draw: Callable[[Theme], Figure], alt: str, header: Sequence[str] = ("title",)) -> Picture:
    """Draw the figure in both themes, cut to what is on it.

    Args:
        header: texts of `style.header`, by gid, that the page says itself.
    """
    uris, box = {}, None
    for name, theme in THEMES.items():
        with context(theme), matplotlib.rc_context({"svg.hashsalt": alt}):
            figure = draw(theme)
            for text in [text for text in figure.texts if text.get_gid() in header]:
                text.remove()
            figure.draw_without_rendering()                 # lays it out
            box = box or figure.get_tightbbox().padded(PAD)
            uris[name] = _uri(figure, box)
    return Picture(alt, uris["light"], uris["dark"], round(96 * box.width), round(96 * box.height))


def _uri(figure: Figure, box: Bbox) -> str:
    drawing = io.BytesIO()
    figure.savefig(drawing, format="svg", bbox_inches=box, metadata={"Date": None, "Creator": None})
    if drawing.tell() <= SVG_BYTES:
        return f"data:image/svg+xml;base64,{b64encode(drawing.getvalue()).decode()}"
    pixels = io.BytesIO()
    figure.savefig(pixels, format="png", dpi=DPI, bbox_inches=box)
    return f"data:image/png;base64,{b64encode(pixels.getvalue()).decode()}"
