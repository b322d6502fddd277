"""Whether a run's confidences are the share of its right answers, from its predictions.csv."""
from __future__ import annotations

import csv

import torch
from matplotlib.figure import Figure
from torch import Tensor

from dassl.evaluation.predictions import FILE as PREDICTIONS
from dassl.metrics.calibration import BINS, adaptive_ece, ece, reliability
from dassl.utils import UserError
from tools.runs.run import Run

from .style import MARGIN, Page, Theme, header_height

WIDTH, SIDE, COUNTS = 5.2, 3.4, 0.9             # of the page, the square and the panel of counts below it: inches


def read(run: Run) -> tuple[Tensor, Tensor]:
    """Confidences (N,) in [0, 1] and whether answers were right (N,).

    Raises:
        UserError: no such file, or one without an answer.
    """
    path = run.folder / PREDICTIONS
    if run.epoch is not None or not path.is_file():
        raise UserError(f"A reliability figure shows the answers in {path}, those of the run's own test" +
                        ("; leave --epoch out." if run.epoch is not None else ", and there is no such file. Test the "
                         "run: tools/train.py --eval-only."))
    with path.open(newline="", encoding="utf-8") as file:
        rows = [(float(row["confidence"]), row["correct"] == "1") for row in csv.DictReader(file)]
    if not rows:
        raise UserError(f"{path} has no answers.")
    confidence, correct = zip(*rows, strict=True)
    return torch.tensor(confidence, dtype=torch.float64), torch.tensor(correct)


def draw(run: Run, theme: Theme) -> Figure:
    confidence, correct = read(run)
    bins = reliability(confidence, correct)
    wide, even = (100 * measure(confidence, correct) for measure in (ece, adaptive_ece))
    title = ("Confidence and accuracy", [run.summary, f"ECE {wide:.2f} %, adaptive {even:.2f} %, over {BINS} bins of "
                                         f"{len(confidence):,} images."])
    start = header_height(*title, WIDTH)
    page = Page(WIDTH, start + SIDE + COUNTS + 1.0, theme)
    page.header(*title)
    left = MARGIN + 0.55
    ax = page.axes(left, start + 0.1, SIDE, SIDE)
    ax.plot([0, 1], [0, 1], color=theme.muted, linewidth=0.8, linestyle="--")
    shown = [b for b in bins if b.count]
    ax.bar([(b.low + b.high) / 2 for b in shown], [b.accuracy for b in shown], 0.9 / BINS, color=theme.hues[0])
    ax.plot([b.confidence for b in shown], [b.accuracy for b in shown], color=theme.hues[1], marker="o", markersize=4)
    ax.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy", xticklabels=[])
    below = page.axes(left, start + SIDE + 0.25, SIDE, COUNTS)
    below.bar([(b.low + b.high) / 2 for b in bins], [b.count for b in bins], 0.9 / BINS, color=theme.muted)
    below.set(xlim=(0, 1), xlabel="confidence", ylabel="images")
    return page.figure
