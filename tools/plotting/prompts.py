"""The learned pixel prompts of a run: each as it looks, how it differs from where it began, and on images."""
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor

from dassl.data.transforms import build_transform
from dassl.utils import UserError, read_image
from tools.runs.run import Run, choose
from trainers.parts.pixel_prompt import FramePrompt, PixelPrompt

from .prm import prompt_names
from .style import BODY, MARGIN, SMALL, Page, Theme, header_height, height_of, widest, wrap

IMAGES_SHOWN = 3
WIDTH, GAP = 10.0, 0.09
SCALE = 0.99                            # share of the learned pixels that the colours tell apart
CHANNELS = ("red", "green", "blue")


@dataclass
class Learned:
    """The pixel prompts of a run.

    Attributes:
        prompts: v bricks of one size. names: of them.
        began: value of every learned pixel before training: 0.5, a grey, in pixel space; 0 where a frame is added to
            the normalised image.
    """

    prompts: list[PixelPrompt] | list[FramePrompt]
    names: list[str]
    began: float

    @property
    def in_pixel_space(self) -> bool:
        return self.prompts[0].in_pixel_space

    def border(self, p: int) -> Tensor:
        """(3, S, S), NaN where the image shows unchanged."""
        prompt = self.prompts[p]
        return prompt.border().masked_fill(prompt.on_canvas(torch.ones_like(prompt.program)) == 0, math.nan)

    def changes(self) -> Tensor:
        """(v, 3, S, S): what training added to each pixel."""
        return torch.stack([self.border(p) - self.began for p in range(len(self.prompts))])


def read(run: Run) -> Learned:
    """Raises UserError where the run learned no pixels."""
    _ = run.checkpoint                          # says why, where there is none
    if not run.holds("pixel."):
        raise UserError(f"prompts draws learned pixels; {run.folder} is a run of {run.trainer}, which learns none. "
                        "Draw it with another figure: tools/plot.py --help.")
    programs = [value for key, value in run.learned.items() if key.startswith("pixel.") and key.endswith(".program")]
    side, count = run.settings["INPUT"]["SIZE"][0], programs[0].shape[1]
    if "normalize" in run.settings["INPUT"]["TRANSFORMS"]:      # prompts in pixel space take images without it
        prompts = [FramePrompt(side, (side - math.isqrt(side * side - count)) // 2) for _ in programs]
    else:
        prompts = [PixelPrompt(math.isqrt(side * side + count), side) for _ in programs]
    for prompt, program in zip(prompts, programs):
        prompt.load_state_dict({"program": program})
        prompt.requires_grad_(False)
    return Learned(prompts, prompt_names(run, len(prompts)), 0.5 if prompts[0].in_pixel_space else 0.0)


def images_of(run: Run, classes: Sequence[str], files: Sequence[str]) -> list[tuple[str, Tensor]]:
    """(name, (3, H, W) as the test transform gives it): the files, or the first test image of each class."""
    if files:
        pictures = [(Path(file).stem, file) for file in files]
    else:
        dataset = run.built_dataset
        C = len(dataset.classnames)
        chosen = choose(dataset.classnames, classes) or [i * C // IMAGES_SHOWN for i in range(min(IMAGES_SHOWN, C))]
        first = {item.label: item.impath for item in reversed(dataset.test)}
        pictures = [(dataset.classnames[c], first[c]) for c in dict.fromkeys(chosen) if c in first]
    transform = build_transform(run.cfg, is_train=False)
    return [(name, transform(read_image(str(file)))) for name, file in pictures]


def draw(run: Run, theme: Theme, classes: Sequence[str] = (), files: Sequence[str] = ()) -> Figure:
    """The figure.

    Args:
        classes: whose first test image is shown under the prompts; () takes three classes.
        files: images of your own instead.
    """
    found = read(run)
    table = _Table(found, images_of(run, classes, files), run.cfg.INPUT, theme)
    title = ("What the learned pixels look like", [run.summary])
    start = header_height(*title, WIDTH)
    page = Page(WIDTH, start + table.height + MARGIN, theme)
    page.header(*title)
    table.draw(page, start)
    return page.figure


class _Table:
    """A row for each prompt: its border, the change in each channel, and the images under it."""

    def __init__(self, found: Learned, images: list[tuple[str, Tensor]], settings, theme: Theme):
        self.found, self.images, self.theme = found, images, theme
        self.mean, self.std = (torch.tensor(v).view(3, 1, 1) for v in (settings.PIXEL_MEAN, settings.PIXEL_STD))
        self.label = 0.0 if len(found.names) == 1 else min(1.1, widest(found.names, BODY, "bold") + 0.15)
        self.names = [wrap(name, max(self.label - 0.12, 0.3), BODY, "bold") for name in found.names]
        self.fixed = [*(["learned border"] if found.in_pixel_space else []), *CHANNELS]
        columns = len(self.fixed) + len(images)
        self.cell = min(1.5, (WIDTH - 2 * MARGIN - self.label - (columns - 1) * GAP - 0.15) / columns)
        self.captions = [wrap(name, self.cell, SMALL) for name, _ in images]
        self.caption = height_of(max(map(len, self.captions)), SMALL) + 0.05
        self.side = found.prompts[0].size
        self.height = self.caption + self.cell + 0.42 + len(found.names) * (self.cell + GAP)

    def draw(self, page: Page, y: float) -> None:
        changes = self.found.changes()
        sizes = changes[~changes.isnan()].abs()
        most = float(sizes.quantile(SCALE)) or 1.0
        self._plain(page, y)
        self._explain(page, y + self.caption, most, beyond=bool(sizes.max() > 1.02 * most))
        y += self.caption + self.cell + 0.17
        for i, name in enumerate(self.fixed):
            page.text(self._x(i) + self.cell / 2, y, name, SMALL, ha="center", color=self.theme.muted)
        for i in range(len(self.images)):
            page.text(self._x(len(self.fixed) + i) + self.cell / 2, y, "prompted", SMALL, ha="center",
                      color=self.theme.muted)
        y += 0.25
        for p, name in enumerate(self.names):
            if self.label:
                page.text(MARGIN, y + self.cell / 2 - height_of(len(name), BODY) / 2, name, BODY, weight="bold")
            self._row(page, y, p, changes[p], most)
            y += self.cell + GAP

    def _row(self, page: Page, y: float, p: int, change: Tensor, most: float) -> None:
        place = iter(range(len(self.fixed) + len(self.images)))
        if self.found.in_pixel_space:
            border = self.found.border(p)
            opaque = (~border[:1].isnan()).float()
            self._picture(page, next(place), y, torch.cat([border.nan_to_num(), opaque]), f"border {p}")
        for channel, values in zip(CHANNELS, change):
            ax = self._axes(page, next(place), y, f"{channel} {p}")
            ax.imshow(values.numpy(), cmap=self.theme.diverging, vmin=-most, vmax=most, interpolation="nearest",
                      extent=(0, self.side, self.side, 0))
        for i, (_, image) in enumerate(self.images):
            shown = self._to_pixels(self.found.prompts[p](image[None])[0])
            self._picture(page, next(place), y, shown, f"prompted {p} {i}")

    def _plain(self, page: Page, y: float) -> None:
        """The images as they are, at the scale they have under the prompts."""
        inset = self.found.prompts[0].before if self.found.in_pixel_space else 0
        for i, (lines, (_, image)) in enumerate(zip(self.captions, self.images)):
            x = self._x(len(self.fixed) + i)
            for n, line in enumerate(lines):
                page.text(x + self.cell / 2, y + height_of(n, SMALL), line, SMALL, ha="center")
            ax = self._axes(page, len(self.fixed) + i, y + self.caption, f"plain {i}")
            end = inset + image.shape[-1]
            ax.imshow(self._to_pixels(image).permute(1, 2, 0).numpy(), interpolation="nearest",
                      extent=(inset, end, end, inset))
            ax.set(xlim=(0, self.side), ylim=(self.side, 0))

    def _explain(self, page: Page, y: float, most: float, beyond: bool) -> None:
        """What the left columns show, and below it their scale, beside the images."""
        first, last = self._x(len(self.fixed) - len(CHANNELS)), self._x(len(self.fixed) - 1) + self.cell
        words = ("Learned border: pixels around the image; they began as an even grey. Red, green, blue: how far "
                 "training moved each channel from that grey, from −0.5 (none of it) to +0.5 (all of it)."
                 if self.found.in_pixel_space else
                 "Red, green, blue: what is added to each channel of the image, in units of the normalised image; it "
                 "began as nothing. Prompted images are cut to the colours that a screen can show.")
        page.text(MARGIN, y, wrap(words, last - MARGIN - 0.2, SMALL), SMALL, color=self.theme.muted)
        ax = page.axes(first, y + self.cell - 0.26, last - first, 0.09)
        ax.set_gid("scale")
        bar = page.figure.colorbar(ScalarMappable(Normalize(-most, most), self.theme.diverging), cax=ax,
                                   orientation="horizontal", ticks=[-most, 0, most],
                                   extend="both" if beyond else "neither")
        labels = bar.ax.set_xticklabels([f"−{most:.2g}", "0", f"+{most:.2g}"])
        labels[0].set_horizontalalignment("left")
        labels[2].set_horizontalalignment("right")
        bar.ax.tick_params(length=0)
        bar.outline.set_visible(False)

    def _picture(self, page: Page, column: int, y: float, pixels: Tensor, gid: str) -> Axes:
        ax = self._axes(page, column, y, gid)
        ax.imshow(pixels.permute(1, 2, 0).numpy(), interpolation="nearest", extent=(0, self.side, self.side, 0))
        return ax

    def _axes(self, page: Page, column: int, y: float, gid: str) -> Axes:
        ax = page.axes(self._x(column), y, self.cell, self.cell, bare=True)
        ax.spines[:].set(visible=not gid.startswith("plain"), color=self.theme.line, linewidth=0.6)
        ax.set_gid(gid)
        return ax

    def _x(self, column: int) -> float:
        """Left edge of a column; the images stand a little apart from what explains them."""
        return MARGIN + self.label + column * (self.cell + GAP) + (0.15 if column >= len(self.fixed) else 0)

    def _to_pixels(self, image: Tensor) -> Tensor:
        """(3, H, W) in [0, 1]."""
        return (image if self.found.in_pixel_space else image * self.std + self.mean).clamp(0, 1)
