"""How every figure looks: colours that survive colour blindness, one font, and pages measured in inches.

Text is measured before it is placed, so nothing is cut off or drawn over something else.
Source: the palette is Okabe & Ito's (Color Universal Design, 2008), lightened where the page is dark.
"""
from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap, LinearSegmentedColormap, hsv_to_rgb, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from matplotlib.patches import Rectangle
from matplotlib.textpath import text_to_path

TITLE, HEADING, BODY, SMALL, TINY = 13.0, 10.0, 8.5, 7.5, 6.5      # sizes of letters, points
LINE = 1.32                                                        # height of a line, in sizes of its letters
MARGIN = 0.45                                                      # around a page, inches
HINTING = 1.02                                                     # letters that are fitted to pixels grow by this
OTHER_SCRIPTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Zen Hei",
                 "WenQuanYi Micro Hei", "Microsoft YaHei", "PingFang SC", "Hiragino Sans", "Malgun Gothic",
                 "Noto Sans Devanagari", "Noto Sans Thai", "Arial Unicode MS")
PNG_DPI, PNG_PIXELS = 200, 12_000                                   # a longer side than this is drawn more coarsely


@dataclass(frozen=True)
class Theme:
    """Colours of a page.

    Attributes:
        page, cell, ink, muted, line: paper, empty cells of a table, text, secondary text, rules.
        hues: for things that have no order; told apart by colour-blind readers.
    """

    name: str
    page: str
    cell: str
    ink: str
    muted: str
    line: str
    hues: tuple[str, ...]

    def colours(self, count: int) -> list[str]:
        """`count` different colours; beyond the palette they are taken evenly from the colour circle."""
        if count <= len(self.hues):
            return list(self.hues[:count])
        return [to_hex(hsv_to_rgb((i / count, 0.75, 0.9 if self.name == "dark" else 0.72))) for i in range(count)]

    def ramp(self, hue: str) -> Colormap:
        """From an empty cell to `hue`."""
        return LinearSegmentedColormap.from_list(hue, [self.cell, hue])

    @property
    def diverging(self) -> Colormap:
        """For signed values: an empty cell is zero."""
        return LinearSegmentedColormap.from_list("diverging", [self.hues[0], self.cell, self.hues[1]])


THEMES = {
    "light": Theme("light", "#ffffff", "#f2f3f5", "#1b1d21", "#6a6f78", "#d8dbe0",
                   ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a6a4f", "#4d4d4d")),
    "dark": Theme("dark", "#14161a", "#1e2127", "#eceef1", "#9aa1ab", "#363b44",
                  ("#56b4e9", "#f28e4b", "#2fc49a", "#e29ac6", "#f0c945", "#8f9bff", "#c2ae86", "#c7ccd3")),
}


def context(theme: Theme) -> AbstractContextManager:
    """matplotlib's settings while a figure is drawn and saved."""
    return matplotlib.rc_context({
        "font.family": list(families()), "font.size": BODY, "text.color": theme.ink, "text.parse_math": False,
        "figure.facecolor": theme.page, "savefig.facecolor": theme.page, "axes.facecolor": theme.page,
        "axes.edgecolor": theme.line, "axes.labelcolor": theme.ink, "axes.labelsize": BODY, "axes.linewidth": 0.8,
        "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": HEADING, "axes.titleweight": "bold",
        "axes.titlelocation": "left", "axes.axisbelow": True, "grid.color": theme.line, "grid.linewidth": 0.6,
        "xtick.color": theme.line, "ytick.color": theme.line, "xtick.labelcolor": theme.muted,
        "ytick.labelcolor": theme.muted, "xtick.labelsize": SMALL, "ytick.labelsize": SMALL, "xtick.major.size": 3,
        "ytick.major.size": 3, "legend.frameon": False, "legend.fontsize": BODY, "pdf.fonttype": 42})


class Page:
    """A figure whose parts are placed in inches from its upper left corner.

    Attributes:
        figure; theme; width, height: inches.
    """

    def __init__(self, width: float, height: float, theme: Theme):
        self.figure, self.theme = Figure(figsize=(width, height)), theme
        FigureCanvasAgg(self.figure)
        self.width, self.height = width, height

    def axes(self, x: float, y: float, width: float, height: float, bare: bool = False) -> Axes:
        """Axes whose upper left corner is at (x, y); `bare` ones have neither frame nor ticks."""
        ax = self.figure.add_axes((x / self.width, 1 - (y + height) / self.height, width / self.width,
                                   height / self.height))
        if bare:
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        return ax

    def text(self, x: float, y: float, text: str | Sequence[str], size: float = BODY, **look) -> None:
        """One or more lines, the first of which begins at y; with `va` that point is the text's middle, bottom ..."""
        for i, line in enumerate([text] if isinstance(text, str) else text):
            line = drawable(line)
            at = y if "va" in look else y + height_of(i, size) + 0.95 * size / 72      # to its baseline
            self.figure.text(x / self.width, 1 - at / self.height, line, size=size, **look)

    def box(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        self.figure.add_artist(Rectangle((x / self.width, 1 - (y + height) / self.height), width / self.width,
                                         height / self.height, color=colour, linewidth=0))

    def rule(self, y: float) -> None:
        """A thin line across the page."""
        self.box(MARGIN, y, self.width - 2 * MARGIN, 0.008, self.theme.line)

    def header(self, title: str, lines: Sequence[str]) -> float:
        """Title and secondary lines, wrapped; returns where they end (see `header_height`).

        Their texts have the gid "title", "line 0", "line 1" ...
        """
        y, room = MARGIN, self.width - 2 * MARGIN
        for line in wrap(title, room, TITLE, "bold"):
            self.text(MARGIN, y, line, TITLE, weight="bold", gid="title")
            y += height_of(1, TITLE)
        for i, line in ((i, part) for i, text in enumerate(lines) for part in wrap(text, room, BODY)):
            self.text(MARGIN, y + 0.03, line, BODY, color=self.theme.muted, gid=f"line {i}")
            y += height_of(1, BODY)
        return y + 0.15


def header_height(title: str, lines: Sequence[str], width: float) -> float:
    """Where `Page.header` ends on a page of that width."""
    room = width - 2 * MARGIN
    count = sum(len(wrap(line, room, BODY)) for line in lines)
    return MARGIN + height_of(len(wrap(title, room, TITLE, "bold")), TITLE) + height_of(count, BODY) + 0.15


def height_of(lines: int, size: float) -> float:
    """Height of so many lines, inches."""
    return lines * size * LINE / 72


@lru_cache(maxsize=8192)
def width_of(text: str, size: float = BODY, weight: str = "normal") -> float:
    """Width of one line, inches."""
    font = FontProperties(family=list(families()), size=size, weight=weight)
    return HINTING * text_to_path.get_text_width_height_descent(drawable(text), font, ismath=False)[0] / 72


@lru_cache(maxsize=1)
def families() -> tuple[str, ...]:
    """The figures' font, and the fonts of this machine that have other scripts' letters."""
    installed = {font.name for font in fontManager.ttflist}
    return ("DejaVu Sans", *(name for name in OTHER_SCRIPTS if name in installed))


def drawable(text: str) -> str:
    """The text with \\u.... in place of letters that no font here has; they would all look the same."""
    return "".join(letter if ord(letter) < 128 or _has_glyph(letter) else f"\\u{ord(letter):04x}" for letter in text)


@lru_cache(maxsize=65536)
def _has_glyph(letter: str) -> bool:
    return any(get_font(findfont(FontProperties(family=name))).get_char_index(ord(letter)) for name in families())


def widest(texts: Sequence[str], size: float = BODY, weight: str = "normal") -> float:
    return max((width_of(text, size, weight) for text in texts), default=0.0)


def wrap(text: str, width: float, size: float = BODY, weight: str = "normal") -> list[str]:
    """Lines of at most `width` inches, broken at spaces (a longer word where it has to be), none left nearly empty."""
    lines = _greedy(text, width, size, weight)
    for share in (0.95, 0.9, 0.85, 0.8, 0.75):
        if len(lines) == 1 or width_of(lines[-1], size, weight) > width / 3:
            break
        narrower = _greedy(text, share * width, size, weight)
        lines = narrower if len(narrower) == len(lines) else lines
    return lines


def _greedy(text: str, width: float, size: float, weight: str) -> list[str]:
    lines, line = [], ""
    for word in text.split():
        if line and width_of(f"{line} {word}", size, weight) <= width:
            line = f"{line} {word}"
            continue
        lines += [line] if line else []
        line = word
        while width_of(line, size, weight) > width and len(line) > 1:
            fits = max((n for n in range(1, len(line)) if width_of(line[:n], size, weight) <= width), default=1)
            lines.append(line[:fits])
            line = line[fits:]
    return [*lines, line] if line or not lines else lines


def flow(widths: Sequence[float], room: float, gap: float = 0.3, line: float = 0.22) -> list[tuple[float, float]]:
    """Places (x, y) of things side by side, from (0, 0); a new line begins where the room ends."""
    places, x, y = [], 0.0, 0.0
    for width in widths:
        if x and x + width > room:
            x, y = 0.0, y + line
        places.append((x, y))
        x += width + gap
    return places


def readable_on(colour: str | Sequence[float]) -> str:
    """Near black or white, the clearer text on a cell of that colour; judged by relative luminance as in WCAG 2."""
    channels = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    luminance = 0.2126 * channels[0] + 0.7152 * channels[1] + 0.0722 * channels[2]
    return "#ffffff" if luminance < 0.25 else "#111111"


def save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=min(PNG_DPI, PNG_PIXELS / max(figure.get_size_inches())))
