"""Images and class texts on a map, zero-shot beside trained, with how far texts spread and classes stay compact."""
from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dassl.utils import UserError
from tools.runs.run import Run

from .features import BeforeAndAfter, Features, centred, read
from .geometry import BANDWIDTH, MEANINGS, measure
from .style import (
    BODY,
    HEADING,
    MARGIN,
    SMALL,
    Page,
    Theme,
    flow,
    header_height,
    height_of,
    width_of,
    wrap,
)

MARKS = "os^"                           # shapes of points; with the theme's hues, what tells classes apart
MOST_CLASSES = 24                       # hues times shapes
IMAGES = 50                             # of each class
SEED, PERPLEXITY, SMALL_START = 0, 30.0, 1e-4        # of t-SNE; its start is as small as scikit-learn's from PCA
WIDTH, GAP = 9.6, 0.4                   # of the page; between the maps: inches
NUMBERS = (("text_uniformity", "texts: uniformity", "lower: more spread"),
           ("text_inter_dispersion", "texts: inter-dispersion", "lower: more spread"),
           ("image_within", "images: within a class", "lower: more compact"),
           ("image_between", "images: between classes", "higher: farther apart"),
           ("image_ratio", "images: between / within", "higher: better apart"),
           ("modality_gap", "gap from images to texts", ""))


def draw(run: Run, theme: Theme, classes: Sequence[str] = (), images: int = IMAGES, keep_gap: bool = False,
         numbers: Path | None = None) -> Figure:
    """The figure.

    Args:
        classes: whose images are drawn; () takes all, or up to 24 of them evenly.
        images: of each class at most.
        keep_gap: leave images and texts apart as CLIP has them, instead of laying their means together.
        numbers: file for the measurements as JSON.
    Raises:
        UserError: more classes than can be told apart; a run without features of images and texts.
    """
    return draw_found(find(run, classes, images), run, theme, keep_gap, numbers)


def find(run: Run, classes: Sequence[str] = (), images: int = IMAGES) -> BeforeAndAfter:
    """What is drawn; for several themes it is computed once."""
    if len(classes) > MOST_CLASSES:
        raise UserError(f"embeddings tells up to {MOST_CLASSES} classes apart; got {len(classes)}. Name fewer.")
    if images < 1:
        raise UserError(f"--images takes 1 or more; got {images}.")
    return read(run, classes, MOST_CLASSES, images)


def draw_found(found: BeforeAndAfter, run: Run, theme: Theme, keep_gap: bool = False, numbers: Path | None = None,
               places: list[np.ndarray] | None = None) -> Figure:
    """The figure; `places` are those of `lay_out`, where they are known already."""
    sides = [("before", "Before: zero-shot CLIP"), ("after", f"After: {run.trainer}")]
    values = measure_both(found)
    if numbers is not None:
        write_numbers(numbers, found, run, values)
    looks = {c: (theme.hues[i % len(theme.hues)], MARKS[i // len(theme.hues)]) for i, c in enumerate(found.shown)}
    names = [found.classnames[c] for c in found.shown]
    side_length = (WIDTH - 2 * MARGIN - GAP) / 2
    title = ("Images and class texts, before and after training", [run.summary, *_explain(found, keep_gap)])
    start = header_height(*title, WIDTH)
    names = [wrap(name, WIDTH - 2 * MARGIN - 0.3, BODY)[0] for name in names]
    marks = flow([0.2 + width_of(name, BODY) for name in names], WIDTH - 2 * MARGIN, gap=0.25)
    top = start + marks[-1][1] + 0.42
    below = top + 0.28 + side_length + 0.12
    page = Page(WIDTH, below + height_of(len(NUMBERS), BODY) + MARGIN, theme)
    page.header(*title)
    for (x, y), name, look in zip(marks, names, looks.values()):
        _legend_entry(page, MARGIN + x, start + y, name, *look)
    for i, ((key, heading), positions) in enumerate(zip(sides, places or lay_out(found, keep_gap))):
        x = MARGIN + i * (side_length + GAP)
        page.text(x, top, heading, HEADING, weight="bold")
        ax = page.axes(x, top + 0.28, side_length, side_length, bare=True)
        ax.set_gid(key)
        ax.spines[:].set(visible=True, color=theme.line)
        _map(ax, positions, found, looks, theme)
        _numbers(page, x, below, values[key], side_length)
    return page.figure


def measure_both(found: BeforeAndAfter) -> dict[str, dict[str, float | None]]:
    """What `measure` gives "before" and "after"."""
    return {key: measure(side.images, found.labels, side.texts)
            for key, side in (("before", found.before), ("after", found.after))}


def lay_out(found: BeforeAndAfter, keep_gap: bool = False) -> list[np.ndarray]:
    """Places before and after, see `tsne`; the second map grows from the first and is turned as it lies."""
    before, after = (side if keep_gap else centred(side) for side in (found.before, found.after))
    start = tsne(before, found.shown)
    return [start, turned(tsne(after, found.shown, start), start)]


def turned(places: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Places (n, 2) turned and mirrored to lie closest to others of the same things; distances stay as they are.

    Source: orthogonal Procrustes (Schoenemann, 1966).
    """
    places, like = places - places.mean(0), like - like.mean(0)
    left, _, right = np.linalg.svd(places.T @ like)
    return places @ left @ right


def tsne(side: Features, shown: Sequence[int], start: np.ndarray | None = None) -> np.ndarray:
    """Places (N + c, 2) of the images and then of the texts of the c shown classes, the same at every call.

    Args:
        start: places of the same things to begin from; None begins from the principal components.
    """
    from sklearn.manifold import TSNE

    points = torch.cat([side.images, side.texts[list(shown)]]).numpy()
    begin = "pca" if start is None else (SMALL_START * start / start.std()).astype(np.float32)
    return TSNE(perplexity=min(PERPLEXITY, (len(points) - 1) / 3), init=begin, random_state=SEED).fit_transform(points)


def write_numbers(path: Path, found: BeforeAndAfter, run: Run, values: dict) -> None:
    """The measurements and what they mean."""
    content = {"run": str(run.folder), "trainer": run.trainer, "dataset": run.dataset, "split": found.split,
               "epoch": run.epoch, "images": len(found.labels),
               "classes_with_images": [found.classnames[c] for c in found.shown],
               "classes_with_texts": len(found.classnames), "notes": list(found.after.notes),
               "bandwidth": BANDWIDTH, **values, "meaning": MEANINGS}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _explain(found: BeforeAndAfter, keep_gap: bool) -> list[str]:
    count, C = len(found.labels), len(found.classnames)
    which = f"all {C} classes" if len(found.shown) == C else f"{len(found.shown)} of {C} classes"
    lines = [f"t-SNE of {count} images of the {found.split} split, {which}: small marks are images, large ones the "
             "texts of their classes." + (not keep_gap) * " Images and texts are laid over each other by their means."]
    if found.after.notes:
        lines.append(f"After: {'; '.join(found.after.notes)}.")
    return lines


def _map(ax: Axes, positions: np.ndarray, found: BeforeAndAfter, looks: dict, theme: Theme) -> None:
    N = len(found.labels)
    for place, (c, (colour, mark)) in enumerate(looks.items()):
        own = positions[:N][(found.labels == c).numpy()]
        ax.scatter(own[:, 0], own[:, 1], s=11, color=colour, marker=mark, alpha=0.65, linewidths=0,
                   gid=f"images {found.classnames[c]}")
        ax.scatter(*positions[N + place][:, None], s=85, color=colour, marker=mark, edgecolors=theme.ink,
                   linewidths=1.3, zorder=3, gid=f"text {found.classnames[c]}")
    low, high = positions.min(0), positions.max(0)
    middle, reach = (low + high) / 2, 0.54 * float((high - low).max())
    ax.set(xlim=(middle[0] - reach, middle[0] + reach), ylim=(middle[1] - reach, middle[1] + reach))


def _numbers(page: Page, x: float, y: float, values: dict[str, float | None], width: float) -> None:
    """Name, value, and what less or more of it means."""
    for i, (key, words, note) in enumerate(NUMBERS):
        value = values[key]
        at = y + height_of(i, BODY)
        page.text(x, at, words, BODY, color=page.theme.muted)
        page.text(x + 0.62 * width, at, "–" if value is None else _signed(value), BODY, ha="right", weight="bold")
        page.text(x + 0.66 * width, at + 0.01, note, SMALL, color=page.theme.muted)


def _signed(value: float) -> str:
    return f"{value:.3f}".replace("-", "−") if math.isfinite(value) else "–"


def _legend_entry(page: Page, x: float, y: float, text: str, colour: str, mark: str) -> None:
    ax = page.axes(x, y + 0.01, 0.14, 0.14, bare=True)
    ax.plot([0.5], [0.5], mark, color=colour, markersize=6, clip_on=False)
    ax.set(xlim=(0, 1), ylim=(0, 1))
    page.text(x + 0.2, y, text, BODY)

