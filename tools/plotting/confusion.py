"""What a run takes for what: for each true class the share of its images that went to each class."""
from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import torch
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor

from dassl.engine.hooks.progress import over
from dassl.utils import load_checkpoint
from tools.runs.run import Run, choose

from .style import (
    BODY,
    HEADING,
    MARGIN,
    SMALL,
    TINY,
    Page,
    Theme,
    header_height,
    height_of,
    readable_on,
    widest,
    width_of,
    wrap,
)
from .tested import rebuild, split_of

logger = logging.getLogger(__name__)

LEAST_WIDTH, SIDE = 7.2, 5.0            # of the page; of a matrix of few classes: inches
CELL = (0.135, 0.5)                     # least and greatest side of a cell
NUMBERS = 0.26                          # cells of this side or more have their number in them
BAR, VALUE, ROW = 0.9, 0.42, 0.2         # longest bar, room for its number, height: of the list of mistakes


def read(run: Run) -> tuple[list[str], Tensor]:
    """Class names, and (C, C) shares of the true classes' images; rows sum to 1, or 0 where a class has no image.

    From cmat.pt, which a run with TEST.COMPUTE_CMAT leaves, or predictions.csv, or else by testing the prompts again;
    so for an epoch.
    """
    saved = run.folder / "cmat.pt"
    if saved.is_file() and run.epoch is None:
        matrix = load_checkpoint(str(saved)).float()
        if len(matrix) == len(run.classnames):         # else classes without any image are not in it
            return run.classnames, matrix
    counts, names = predicted(run) or evaluate(run)
    return names, counts / counts.sum(1, keepdim=True).clamp(min=1)


def predicted(run: Run) -> tuple[Tensor, list[str]] | None:
    """What `evaluate` gives, from the run's predictions.csv; None without one that can tell the classes apart."""
    if run.epoch is not None or not run.answers:
        return None
    pairs = [[name.removeprefix("'") for name in names] for _, *names in run.answers]
    label = {name.removeprefix("'"): c for c, name in enumerate(run.classnames)}      # the file marks some with a '
    if len(label) < len(run.classnames) or not {name for pair in pairs for name in pair} <= label.keys():
        return None
    C = len(label)
    places = torch.tensor([label[true] * C + label[guess] for true, guess in pairs], dtype=torch.int64)
    return torch.bincount(places, minlength=C * C).view(C, C).float(), run.classnames


def evaluate(run: Run) -> tuple[Tensor, list[str]]:
    """(C, C) numbers of test images by true and predicted class, and the class names."""
    trainer = rebuild(run)
    split, loader = split_of(run, trainer)
    C = trainer.num_classes
    counts = torch.zeros(C, C)
    with torch.no_grad():
        for batch in over(loader, f"{split} split"):
            images, label = trainer.parse_batch_test(batch)
            out = trainer.model_inference(images)
            guess = (out[0] if isinstance(out, (tuple, list)) else out).argmax(1)
            counts += torch.bincount((label * C + guess).cpu(), minlength=C * C).view(C, C)
    trainer.close_loaders()
    _compare(run, 100 * float(counts.trace() / counts.sum()))
    return counts, [trainer.lab2cname[label] for label in range(C)]


def draw(run: Run, theme: Theme, classes: Sequence[str] = (), top: int = 12) -> Figure:
    """The figure.

    Args:
        classes: rows and columns to show; () takes all. Images that went to other classes are then not seen.
        top: most frequent mistakes that are listed.
    """
    return draw_found(*read(run), run, theme, classes, top)


def draw_found(names: list[str], matrix: Tensor, run: Run, theme: Theme, classes: Sequence[str] = (),
               top: int = 12) -> Figure:
    chosen = choose(names, classes) or list(range(len(names)))
    names, matrix = [names[c] for c in chosen], matrix[chosen][:, chosen]
    wrong = matrix.clone().fill_diagonal_(0)
    mistakes = [(float(wrong[t, p]), names[t], names[p]) for t, p in _largest(wrong, top)]
    title = ("What is taken for what", [run.summary])
    cell = min(CELL[1], max(CELL[0], SIDE / len(names)))
    size = SMALL if cell >= 0.15 else TINY
    label = widest(names, size) + 0.1
    width = max(LEAST_WIDTH, 2 * MARGIN + label + len(names) * cell)
    start = header_height(*title, width)
    top_of_list = start + 0.55 + len(names) * cell + label + 0.25
    listed = _Mistakes(mistakes, theme, width)
    page = Page(width, top_of_list + listed.height + MARGIN, theme)
    page.header(*title)
    _scales(page, start, float(wrong.max()), theme)
    _matrix(page, MARGIN + label, start + 0.55, matrix, names, cell, size, theme)
    listed.draw(page, top_of_list)
    return page.figure


def _matrix(page: Page, x: float, y: float, matrix: Tensor, names: list[str], cell: float, size: float,
            theme: Theme) -> None:
    C = len(names)
    ax = page.axes(x, y, C * cell, C * cell, bare=True)
    diagonal = torch.eye(C, dtype=torch.bool)
    most = float(matrix.masked_fill(diagonal, 0).max()) or 1.0
    for gid, shown, hue, top in (("right", diagonal, theme.hues[0], 1.0), ("wrong", ~diagonal, theme.hues[1], most)):
        ramp = theme.ramp(hue)
        values = matrix.masked_fill(~shown, float("nan")).numpy()
        ax.imshow(values, cmap=ramp, vmin=0, vmax=top, extent=(0, C, C, 0), interpolation="nearest", gid=gid)
        if cell >= NUMBERS:
            for t, p in (shown & (matrix >= 0.005)).nonzero().tolist():
                share = float(matrix[t, p])
                ax.text(p + 0.5, t + 0.52, f"{100 * share:.0f}", size=TINY if cell < 0.35 else SMALL, ha="center",
                        va="center", color=readable_on(ramp(share / top)))
    edges, thick = range(1, C), 1.2 if C <= 30 else 0.5
    ax.hlines(edges, 0, C, color=theme.page, linewidth=thick)
    ax.vlines(edges, 0, C, color=theme.page, linewidth=thick)
    ax.set(xlim=(0, C), ylim=(C, 0))
    for c, name in enumerate(names):
        page.text(x - 0.07, y + (c + 0.5) * cell, name, size, ha="right", va="center")
        page.text(x + (c + 0.5) * cell, y + C * cell + 0.07, name, size, ha="center", va="top", rotation=90)


def _scales(page: Page, y: float, most: float, theme: Theme) -> None:
    """Rows are what is true, columns what it is taken for; two scales."""
    x = MARGIN
    for text, hue, top in (("right", theme.hues[0], 1.0), ("taken for another class", theme.hues[1], most or 1.0)):
        words = f"{text}, 0 to {100 * top:.0f} %"
        ax = page.axes(x, y + 0.03, 0.6, 0.11)
        bar = page.figure.colorbar(ScalarMappable(Normalize(0, top), theme.ramp(hue)), cax=ax, orientation="horizontal",
                                   ticks=[])
        bar.outline.set_visible(False)
        page.text(x + 0.68, y, words, BODY)
        x += 0.68 + width_of(words, BODY) + 0.35
    words = "Rows: the true class; columns: what it is taken for; percent of the true class's images"
    page.text(MARGIN, y + 0.22, words, SMALL, color=theme.muted)


class _Mistakes:
    """The most frequent mistakes, downwards in as many columns as the page is wide."""

    def __init__(self, mistakes: list[tuple[float, str, str]], theme: Theme, width: float):
        self.theme, room = theme, width - 2 * MARGIN
        words = [f"{true}  →  {guess}" for _, true, guess in mistakes]
        column = min(BAR + VALUE + widest(words, SMALL) + 0.4, room)
        self.columns = max(1, min(int((room + 0.4) // column), math.ceil(len(words) / 4)))
        self.column = room / self.columns
        self.rows = [(share, wrap(text, self.column - BAR - VALUE, SMALL))
                     for text, (share, *_) in zip(words, mistakes)]
        self.step = ROW + height_of(max((len(text) for _, text in self.rows), default=1) - 1, SMALL)
        self.lines = math.ceil(len(self.rows) / self.columns)
        self.height = 0.35 + self.lines * self.step if self.rows else 0.0

    def draw(self, page: Page, y: float) -> None:
        if not self.rows:
            return
        page.text(MARGIN, y, "Most frequent mistakes", HEADING, weight="bold")
        most = self.rows[0][0]
        for i, (share, text) in enumerate(self.rows):
            x, at = MARGIN + i // self.lines * self.column, y + 0.35 + i % self.lines * self.step
            page.box(x, at + 0.03, BAR * share / most, 0.1, self.theme.hues[1])
            page.text(x + BAR * share / most + 0.05, at + 0.01, f"{100 * share:.0f} %", TINY, color=self.theme.muted)
            page.text(x + BAR + VALUE, at, text, SMALL)


def _largest(wrong: Tensor, count: int) -> list[tuple[int, int]]:
    """Places of the largest values above zero."""
    found = wrong.flatten().sort(descending=True, stable=True)
    return [divmod(int(place), len(wrong)) for value, place in zip(found.values[:count], found.indices) if value > 0]


def _compare(run: Run, accuracy: float) -> None:
    """Say where the test that was just made differs from the run's own."""
    before = run.record.get("metrics", {}).get("accuracy")
    if before is not None and run.epoch is None and abs(accuracy - before) > 0.05:
        logger.warning("Tested again, this run gives %.2f %% and its results.json says %.2f %%: the data, the code or "
                       "the machine has changed.", accuracy, before)
