"""The learned pixel prompts of a run: each as it looks, how it differs from where it began, and on images."""
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from torch import Tensor

from dassl.data.transforms import build_transform
from dassl.utils import UserError, read_image
from tools.runs.run import Run, choose
from trainers.parts.pixel_prompt import FramePrompt, PixelPrompt

from .prm import prompt_names
from .style import Theme, header, sheet, wrap

IMAGES_SHOWN = 3
WIDTH, NARROW = 10.0, 5.0               # of the figure; of one without a column for each channel: inches
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
    """A row for each prompt: its border, the change in each channel, and the images under it.

    Args:
        classes: whose first test image is shown under the prompts; () takes three classes.
        files: images of your own instead.
    """
    found, images = read(run), images_of(run, classes, files)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (run.cfg.INPUT.PIXEL_MEAN, run.cfg.INPUT.PIXEL_STD))
    own = ["learned border"] * found.in_pixel_space
    channels = CHANNELS if theme.wide(WIDTH) >= NARROW or not own else ()
    v, fixed = len(found.prompts), len(own) + len(channels)
    columns = fixed + len(images)
    changes, size = found.changes(), found.prompts[0].size
    known = changes[~changes.isnan()].abs()
    most = float(known.quantile(SCALE)) or 1.0
    cell = (theme.wide(WIDTH) - 0.8) / columns
    figure = sheet(theme, WIDTH, (v + 1) * (cell + 0.22) + 0.2)
    axes = figure.subplots(v + 1, columns)

    def pixels(image: Tensor) -> np.ndarray:
        return (image if found.in_pixel_space else image * std + mean).clamp(0, 1).permute(1, 2, 0).numpy()

    look = {"extent": (0, size, size, 0)}
    for p, row in enumerate(axes[:v]):
        row[0].set_ylabel("\n".join(wrap(found.names[p], cell, theme.body)) if v > 1 else "", weight="bold")
        if own:
            border = found.border(p)
            opaque = (~border[:1].isnan()).float()
            _picture(row[0], torch.cat([border.nan_to_num(), opaque]).permute(1, 2, 0).numpy(), f"border {p}", **look)
        for ax, channel, values in zip(row[len(own):fixed], channels, changes[p]):
            shown = _picture(ax, values.numpy(), f"{channel} {p}", cmap=theme.diverging, vmin=-most, vmax=most, **look)
        for i, (ax, (_, image)) in enumerate(zip(row[fixed:], images)):
            _picture(ax, pixels(found.prompts[p](image[None])[0]), f"prompted {p} {i}", **look)
    for ax, name in zip(axes[0], [*own, *channels, *(name for name, _ in images)]):
        ax.set_title("\n".join(wrap(name, cell, theme.small)), size=theme.small, weight="normal", loc="center")
    inset = found.prompts[0].before if found.in_pixel_space else 0
    for i, (ax, (_, image)) in enumerate(zip(axes[v][fixed:], images)):
        end = inset + image.shape[-1]
        _picture(ax, pixels(image), f"plain {i}", extent=(inset, end, end, inset))
        ax.set(xlim=(0, size), ylim=(size, 0))
        ax.set_xlabel("without prompt" if i == len(images) // 2 else "", size=theme.small)
    for ax in axes[v][:fixed]:
        ax.remove()
    if channels:
        _scale(figure, axes[0][0].get_gridspec()[v, len(own):fixed], shown, most, found, known, 3 * cell, theme)
    header(figure, theme, "Learned pixels", [run.summary])
    return figure


def _scale(figure: Figure, place, shown: AxesImage, most: float, found: Learned, known: Tensor, room: float,
           theme: Theme) -> None:
    """The colours of the channels, below them."""
    under = figure.add_subplot(place)
    under.set_axis_off()
    scale = under.inset_axes((0.02, 0.8, 0.96, 0.12), gid="scale")
    bar = figure.colorbar(shown, cax=scale, orientation="horizontal", ticks=[-most, 0, most],
                          extend="both" if bool(known.max() > 1.02 * most) else "neither")
    bar.ax.set_xticklabels([f"−{most:.2g}", "0", f"+{most:.2g}"])
    bar.set_label("change by training" if theme.paper else "\n".join(wrap(
        "how far training moved each channel from the grey where it began, from −0.5 (none of it) to +0.5 (all of it)"
        if found.in_pixel_space else "what is added to each channel, in units of the normalised image; it began as 0",
        room, theme.small)), size=theme.small)


def _picture(ax: Axes, content: np.ndarray, gid: str, **look) -> AxesImage:
    ax.set(gid=gid, xticks=[], yticks=[])
    ax.spines[:].set_visible(not gid.startswith("plain"))
    return ax.imshow(content, **look)
