"""How every figure looks, on a screen and in a paper: colours, letters, marks and titles.

Layout is matplotlib's (constrained); titles are above the figure, and saving makes room for them.
Source: the palette is Okabe & Ito's (Color Universal Design, 2008), lightened where the page is dark; in a paper its
hues are ordered and darkened so that they differ in lightness too.
"""
from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap, LinearSegmentedColormap, hsv_to_rgb, to_hex
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from matplotlib.transforms import offset_copy

from dassl.files.whole import write_whole

OTHER_SCRIPTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Zen Hei",
                 "WenQuanYi Micro Hei", "Microsoft YaHei", "PingFang SC", "Hiragino Sans", "Malgun Gothic",
                 "Noto Sans Devanagari", "Noto Sans Thai", "Arial Unicode MS")
SERIF = ("Times New Roman", "Nimbus Roman", "STIXGeneral")
PNG_DPI, PNG_PIXELS = 200, 12_000               # a longer side than this is drawn more coarsely
WIDTHS = {"column": 3.25, "text": 6.875}        # inches, of a two-column paper (CVPR, ICCV)
LEAST_PT = 8.0                                  # size of letters in a paper
MARKS = "osv^P*X<p>"                            # of measured points; published ones are hollow diamonds
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (6, 1.5, 1.5, 1.5)), (0, (9, 2)), (0, (3, 1, 1, 1, 1, 1)),
          (0, (8, 1.5, 3, 1.5)))


@dataclass(frozen=True)
class Theme:
    """Colours of a page, and how a figure for a paper differs.

    Attributes:
        page, cell, ink, muted, line: paper, empty cells, text, secondary text, rules.
        hues: for things that have no order; told apart by colour-blind readers.
        paper: without title and prose, letters of at least 8 pt at `width`, inches (None: one column).
        band, serif: draw spreads over seeds; letters with serifs.
    """

    name: str
    page: str
    cell: str
    ink: str
    muted: str
    line: str
    hues: tuple[str, ...]
    paper: bool = False
    width: float | None = None
    band: bool = True
    serif: bool = False

    def colours(self, count: int) -> list[str]:
        """`count` different colours; beyond the palette they are taken evenly from the colour circle."""
        if count <= len(self.hues):
            return list(self.hues[:count])
        return [to_hex(hsv_to_rgb((i / count, 0.75, 0.9 if self.name == "dark" else 0.72))) for i in range(count)]

    def look(self, i: int) -> dict:
        """Colour, mark and dash of the i-th line; beyond the palette a colour comes with another dash."""
        rounds = i // len(self.hues)
        return {"color": self.hues[i % len(self.hues)], "marker": MARKS[i % len(MARKS)],
                "linestyle": DASHES[(i + rounds) % len(DASHES)]}

    def heat(self, *hues: str) -> Colormap:
        """From an empty cell towards `hue`, or from one over an empty cell to the other; `ink` is readable on all."""
        share = {"light": 0.8, "paper": 0.6, "dark": 0.5}[self.name]
        ends = [LinearSegmentedColormap.from_list(hue, [self.cell, hue])(share) for hue in hues or self.hues[:1]]
        return LinearSegmentedColormap.from_list("heat", [*ends[:-1], self.cell, ends[-1]])

    @property
    def diverging(self) -> Colormap:
        """For signed values without words on them: an empty cell is zero."""
        return LinearSegmentedColormap.from_list("diverging", [self.hues[0], self.cell, self.hues[1]])

    @property
    def body(self) -> float:
        """Size of letters, points."""
        return LEAST_PT if self.paper else 8.5

    @property
    def small(self) -> float:
        return LEAST_PT if self.paper else 7.5

    def wide(self, screen: float) -> float:
        """Width of a figure, inches: `screen`, unless it is for a paper."""
        return (self.width or WIDTHS["column"]) if self.paper else screen


THEMES = {
    "light": Theme("light", "#ffffff", "#f2f3f5", "#1b1d21", "#6a6f78", "#d8dbe0",
                   ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a6a4f", "#4d4d4d")),
    "dark": Theme("dark", "#14161a", "#1e2127", "#eceef1", "#9aa1ab", "#363b44",
                  ("#56b4e9", "#f28e4b", "#2fc49a", "#e29ac6", "#f0c945", "#8f9bff", "#c2ae86", "#c7ccd3")),
    "paper": Theme("paper", "#ffffff", "#f2f3f5", "#000000", "#333333", "#c8c8c8",
                   ("#003f6b", "#d55e00", "#000000", "#d99a00", "#00694c", "#cc79a7", "#0072b2"), paper=True),
}


def context(theme: Theme) -> AbstractContextManager:
    """matplotlib's settings while a figure is drawn and saved."""
    return matplotlib.rc_context({
        "font.family": list(families(theme.serif)), "font.size": theme.body, "text.color": theme.ink,
        "text.parse_math": False, "figure.facecolor": theme.page, "savefig.facecolor": theme.page,
        "savefig.bbox": None if theme.paper else "tight", "savefig.pad_inches": 0.2, "axes.facecolor": theme.page,
        "axes.edgecolor": theme.line, "axes.labelcolor": theme.ink, "axes.labelsize": theme.body,
        "axes.linewidth": 0.8, "axes.spines.top": False, "axes.spines.right": False,
        "axes.titlesize": theme.body if theme.paper else 10, "axes.titleweight": "bold", "axes.titlelocation": "left",
        "axes.axisbelow": True, "grid.color": theme.line, "grid.linewidth": 0.6, "xtick.color": theme.line,
        "ytick.color": theme.line, "xtick.labelcolor": theme.muted, "ytick.labelcolor": theme.muted,
        "xtick.labelsize": theme.small, "ytick.labelsize": theme.small, "xtick.major.size": 3, "ytick.major.size": 3,
        "lines.linewidth": 1.6, "lines.markersize": 4.5, "legend.frameon": False, "legend.fontsize": theme.body,
        "legend.handlelength": 2.1 if theme.paper else 2.5, "legend.columnspacing": 1.1,
        "image.interpolation": "nearest", "pdf.fonttype": 42, "ps.fonttype": 42})


def sheet(theme: Theme, width: float, height: float) -> Figure:
    """An empty figure, `width` inches wide on a screen and as asked for in a paper."""
    figure = Figure(figsize=(theme.wide(width), height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.05, h_pad=0.05)
    return figure


def header(figure: Figure, theme: Theme, title: str, lines: Sequence[str] = ()) -> None:
    """Title and secondary lines above a figure, with the gids "title", "line 0" ...; a paper's caption says them."""
    if theme.paper:
        return
    room = figure.get_figwidth() - 0.2
    texts = [("title", part, 13.0) for part in wrap(title, room, 13.0)]
    texts += [(f"line {i}", part, theme.body) for i, line in enumerate(lines) for part in wrap(line, room, theme.body)]
    y = 8.0
    for gid, text, size in reversed(texts):
        look = {"weight": "bold"} if gid == "title" else {"color": theme.muted}
        figure.text(0, 1, text, size=size, gid=gid, va="bottom", transform=offset_copy(
            figure.transFigure, figure, 4, y, units="points"), **look)
        y += 1.4 * size


def legend(figure: Figure, handles: Sequence, names: Sequence[str], **options) -> None:
    """Above the axes, in as many columns as the figure is wide; the figure grows by its height."""
    renderer = figure.canvas.get_renderer()
    for columns in range(len(names), 0, -1):
        made = figure.legend(handles, [drawable(name) for name in names], loc="upper left", ncols=columns,
                             borderaxespad=0.1, bbox_to_anchor=(0, 1), bbox_transform=figure.transFigure, **options)
        box = made.get_window_extent(renderer)
        if columns == 1 or box.width <= figure.bbox.width - 8:
            break
        made.remove()
    width, height = figure.get_size_inches()
    whole = height + box.height / figure.dpi + 0.05
    figure.set_size_inches(width, whole)
    figure.get_layout_engine().set(rect=(0, 0, 1, height / whole))


@lru_cache(maxsize=2)
def families(serif: bool = False) -> tuple[str, ...]:
    """The figures' font, and the fonts of this machine that have other scripts' letters."""
    installed = {font.name for font in fontManager.ttflist}
    first = next((name for name in SERIF if serif and name in installed), "DejaVu Serif" if serif else "DejaVu Sans")
    return tuple(dict.fromkeys((first, "DejaVu Sans", *(name for name in OTHER_SCRIPTS if name in installed))))


def drawable(text: str) -> str:
    """The text with \\u.... in place of letters that no font here has; they would all look the same."""
    return "".join(letter if ord(letter) < 128 or _has_glyph(letter) else f"\\u{ord(letter):04x}" for letter in text)


@lru_cache(maxsize=65536)
def _has_glyph(letter: str) -> bool:
    return any(get_font(findfont(FontProperties(family=name))).get_char_index(ord(letter)) for name in families())


def wrap(text: str, width: float, size: float) -> list[str]:
    """Lines of about `width` inches; of facts between dots, each stays in one."""
    if "·" in text:                             # textwrap does not break at a no-break space, \xa0
        text = text.replace(" ", "\xa0").replace("·\xa0\xa0", "·  ")
    return [drawable(line) for line in textwrap.wrap(text, max(8, int(width * 72 / (0.55 * size))))] or [""]


def write(draw: Callable[[Theme], Figure], path: Path, theme: Theme) -> None:
    """Draw a figure in a theme and write it."""
    with context(theme):
        save(draw(theme), path)


def save(figure: Figure, path: Path) -> None:
    """Write the whole figure or nothing; the format is that of the file's name."""
    drawing = io.BytesIO()
    figure.savefig(drawing, format=path.suffix[1:].lower(), dpi=min(PNG_DPI, PNG_PIXELS / max(
        figure.get_size_inches())))
    write_whole(path, drawing.getvalue())
