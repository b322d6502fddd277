"""The confusion matrix of a run, in images, and its most frequent mistakes."""
from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache

import torch
from matplotlib.figure import Figure
from torch import Tensor

from dassl.utils import UserError
from tools.evaluating.tested import logits_of, rebuild, split_of
from tools.runs.run import Run, choose

from .matrix import draw_matrix
from .style import Theme, header

logger = logging.getLogger(__name__)

PATTERN = 2                             # images: one alone is no pattern


@lru_cache(maxsize=1)
def read(run: Run) -> tuple[list[str], Tensor]:
    """Class names, and (C, C) numbers of tested images by true and predicted class.

    From the run's predictions.csv, or else by testing again; so for an epoch.
    """
    if run.epoch is None and run.answers:
        pairs = [[name.removeprefix("'") for name in names] for _, *names in run.answers]
        label = {name.removeprefix("'"): c for c, name in enumerate(run.classnames)}  # the file marks some with a '
        if len(label) == len(run.classnames) and {name for pair in pairs for name in pair} <= label.keys():
            C = len(label)
            places = torch.tensor([label[true] * C + label[guess] for true, guess in pairs], dtype=torch.int64)
            return run.classnames, torch.bincount(places, minlength=C * C).view(C, C)
    return evaluate(run)


def evaluate(run: Run) -> tuple[list[str], Tensor]:
    """The same by testing now; a warning where that differs from the run's own result."""
    trainer = rebuild(run)
    split, loader = split_of(run, trainer)
    C, (logits, labels) = trainer.num_classes, logits_of(trainer, loader, split)
    counts = torch.bincount(labels * C + logits.argmax(1), minlength=C * C).view(C, C)
    trainer.close_loaders()
    accuracy, before = 100 * float(counts.trace() / counts.sum()), run.record.get("metrics", {}).get("accuracy")
    if before is not None and run.epoch is None and abs(accuracy - before) > 0.05:
        logger.warning("Tested again, this run reaches %.2f %%, but its results.json says %.2f %%: the data, the code "
                       "or the machine has changed.", accuracy, before)
    return [trainer.lab2cname[label] for label in range(C)], counts


def draw(run: Run, theme: Theme, classes: Sequence[str] = (), top: int = 12) -> Figure:
    """The figure.

    Args:
        classes: rows and columns to show; () takes all. Images that went to other classes are then not shown.
        top: most frequent mistakes that are listed.
    """
    names, counts = read(run)
    chosen = choose(names, classes) or list(range(len(names)))
    names, counts = [names[c] for c in chosen], counts[chosen][:, chosen]
    total = int(counts.sum())
    if not total:
        raise UserError("There is no image among the chosen classes. Name others with --classes.")
    values = counts.double().masked_fill(counts == 0, float("nan"))             # an empty cell is no image
    figure = draw_matrix(values.numpy(), names, names, None, "images", "true class", "predicted class", digits=0,
                         limits=(0, float(counts.max())), theme=theme)
    right = int(counts.trace())
    lines = [run.summary, f"n = {total:,} images, {right:,} correct ({100 * right / total:.1f} %); each cell counts "
                          "images."]
    if listed := mistakes(names, counts, top):
        lines.append("Most frequent mistakes: " + "; ".join(
            f"{true} as {guess} {count} of {of}" for count, of, true, guess in listed) + ".")
    header(figure, theme, "Confusion matrix", lines)
    return figure


def mistakes(names: Sequence[str], counts: Tensor, top: int, rows: Sequence[int] | None = None
             ) -> list[tuple[int, int, str, str]]:
    """(images, of so many, true class, predicted class) of the pairs with at least two images, the most first.

    Args:
        counts: (R, C) images. rows: true classes of its rows; None: all C.
    """
    rows = range(len(names)) if rows is None else rows
    wrong = [(int(n), int(counts[r].sum()), names[true], names[p]) for r, true in enumerate(rows)
             for p, n in enumerate(counts[r]) if p != true and n >= PATTERN]
    return sorted(wrong, key=lambda pair: -pair[0])[:top]
