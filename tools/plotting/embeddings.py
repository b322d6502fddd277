"""Images and class texts on a map, zero-shot and trained, with how far texts spread and classes stay compact."""
from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dassl.utils import UserError, write_json
from tools.runs.run import Run

from .features import BeforeAndAfter, Features, centred, read
from .measures import BANDWIDTH, MEASURES, measure
from .style import Theme, header, legend, sheet, wrap

MOST_CLASSES = 24                       # hues times shapes
IMAGES = 50                             # of each class
SEED, PERPLEXITY, SMALL_START = 0, 30.0, 1e-4        # of t-SNE; its start is as small as scikit-learn's from PCA
WIDTH = 9.6                             # of the figure: inches
MARKS = "os^Dv*"                         # with the theme's hues, what tells classes apart


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
    found = find(run, classes, images)
    values = measure_both(found)
    if numbers is not None:
        write_numbers(numbers, found, run, values)
    looks = {c: (theme.hues[i % len(theme.hues)], MARKS[i // len(theme.hues) % len(MARKS)])
             for i, c in enumerate(found.shown)}
    side = theme.wide(WIDTH) / 2
    figure = sheet(theme, WIDTH, side + (0.25 if theme.paper else 1.7))
    axes = figure.subplots(1, 2)
    for ax, key, name, positions in zip(axes, ("before", "after"), ("zero-shot CLIP", run.trainer),
                                        lay_out(found, keep_gap)):
        ax.set(gid=key, title=name if theme.paper else f"{key.capitalize()}: {name}", xticks=[], yticks=[])
        ax.spines[:].set_visible(True)
        _map(ax, positions, found, looks, theme)
        if not theme.paper:                         # they are in the file next to the figure
            for i, (number, (words, note, _)) in enumerate(MEASURES.items()):
                for x, text, look in ((0, words, {"color": theme.muted}), (0.54, _number(values[key][number]), {
                        "ha": "right", "weight": "bold"}), (0.57, note, {"color": theme.muted, "size": theme.small})):
                    ax.annotate(text, (x, 0), (0, -6 - 13 * i), "axes fraction", "offset points", va="top", **look)
    legend(figure, [Line2D([], [], linestyle="", color=colour, marker=mark) for colour, mark in looks.values()],
           [wrap(found.classnames[c], theme.wide(WIDTH) - 0.5, theme.body)[0] for c in found.shown],
           handletextpad=0.2, handlelength=1.2)
    header(figure, theme, "Images and class texts, before and after training",
           [run.summary, *_explain(found, keep_gap)])
    return figure


def find(run: Run, classes: Sequence[str] = (), images: int = IMAGES) -> BeforeAndAfter:
    """What is drawn."""
    if len(classes) > MOST_CLASSES:
        raise UserError(f"embeddings can tell at most {MOST_CLASSES} classes apart, got {len(classes)}. Name fewer.")
    return read(run, tuple(classes), MOST_CLASSES, images)


def measure_both(found: BeforeAndAfter) -> dict[str, dict[str, float | None]]:
    """What `measure` gives "before" and "after"."""
    return {key: measure(side.images, found.labels, side.texts)
            for key, side in (("before", found.before), ("after", found.after))}


@lru_cache(maxsize=1)
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
    from threadpoolctl import threadpool_limits

    points = torch.cat([side.images, side.texts[list(shown)]]).numpy()
    begin = "pca" if start is None else (SMALL_START * start / start.std()).astype(np.float32)
    tsne = TSNE(perplexity=min(PERPLEXITY, (len(points) - 1) / 3), init=begin, random_state=SEED)
    with threadpool_limits(1):                      # so few points are ten times as cheap without waiting for threads
        return tsne.fit_transform(points)


def write_numbers(path: Path, found: BeforeAndAfter, run: Run, values: dict) -> None:
    """The measurements and what they mean."""
    content = {"run": str(run.folder), "trainer": run.trainer, "dataset": run.dataset_name, "split": found.split,
               "epoch": run.epoch, "images": len(found.labels),
               "classes_with_images": [found.classnames[c] for c in found.shown],
               "classes_with_texts": len(found.classnames), "notes": list(found.after.notes),
               "bandwidth": BANDWIDTH, **values,
               "meaning": {name: meaning for name, (_, _, meaning) in MEASURES.items()}}
    write_json(content, str(path))


def _explain(found: BeforeAndAfter, keep_gap: bool) -> list[str]:
    count, C = len(found.labels), len(found.classnames)
    which = f"all {C} classes" if len(found.shown) == C else f"{len(found.shown)} of {C} classes"
    lines = [f"t-SNE of {count} images of the {found.split} split, {which}: small marks are images, large ones the "
             "texts of their classes." + (not keep_gap) * " Their means are aligned."]
    if found.after.notes:
        lines.append(f"After: {'; '.join(found.after.notes)}.")
    return lines


def _map(ax: Axes, positions: np.ndarray, found: BeforeAndAfter, looks: dict, theme: Theme) -> None:
    N, (small, large, edge) = len(found.labels), (6, 40, 0.9) if theme.paper else (11, 85, 1.3)
    for place, (c, (colour, mark)) in enumerate(looks.items()):
        own = positions[:N][(found.labels == c).numpy()]
        ax.scatter(own[:, 0], own[:, 1], s=small, color=colour, marker=mark, alpha=0.65, linewidths=0,
                   gid=f"images {found.classnames[c]}")
        ax.scatter(*positions[N + place][:, None], s=large, color=colour, marker=mark, edgecolors=theme.ink,
                   linewidths=edge, zorder=3, gid=f"text {found.classnames[c]}")
    low, high = positions.min(0), positions.max(0)
    middle, reach = (low + high) / 2, 0.54 * float((high - low).max())
    ax.set(xlim=(middle[0] - reach, middle[0] + reach), ylim=(middle[1] - reach, middle[1] + reach), aspect="equal")


def _number(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.3f}".replace("-", "−")
