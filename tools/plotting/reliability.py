"""Whether a run's confidences are the share of its right answers, from its predictions.csv."""
from __future__ import annotations

import torch
from matplotlib.figure import Figure
from torch import Tensor

from dassl.metrics.calibration import BINS, adaptive_ece, adaptive_reliability, ece, reliability
from dassl.utils import UserError
from tools.runs.folder import PREDICTIONS
from tools.runs.run import Run

from .style import Theme, header, legend, sheet

WIDTH = 4.2                             # inches


def read(run: Run) -> tuple[Tensor, Tensor]:
    """Confidences (N,) in [0, 1] and whether answers were right (N,).

    Raises:
        UserError: no such file, or one without an answer.
    """
    path = run.folder / PREDICTIONS
    if run.epoch is not None:
        raise UserError(f"A reliability diagram shows the run's own test, {path}. Leave --epoch out.")
    if not (rows := run.confidences):
        raise UserError(f"A reliability diagram needs {path}, and it is not there or has no answers. Test the run: "
                        "tools/train.py --eval-only.")
    confidence, correct = zip(*rows, strict=True)
    return torch.tensor(confidence, dtype=torch.float64), torch.tensor(correct)


def draw(run: Run, theme: Theme) -> Figure:
    confidence, correct = read(run)
    wide, even = (100 * measure(confidence, correct) for measure in (ece, adaptive_ece))
    bins, points = reliability(confidence, correct), adaptive_reliability(confidence, correct)
    figure = sheet(theme, WIDTH, 1.35 * theme.wide(WIDTH))
    ax, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    perfect, = ax.plot([0, 1], [0, 1], color=theme.muted, linewidth=0.8, linestyle="--", gid="perfect")
    middles, bar = [(b.low + b.high) / 2 for b in bins], 0.92 / BINS
    bars = ax.bar(middles, [b.accuracy if b.count else float("nan") for b in bins], bar, color=theme.hues[0],
                  alpha=0.75, gid="accuracy")
    even_points, = ax.plot([b.confidence for b in points], [b.accuracy for b in points], color=theme.hues[1],
                           marker="o", linestyle="", gid="adaptive", clip_on=False)
    ax.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
    below.bar(middles, [b.count for b in bins], bar, color=theme.muted, gid="images")
    below.set(xlabel="confidence", ylabel="images")
    legend(figure, [bars, even_points, perfect], [f"equal width: ECE {wide:.1f} %", f"equal count: ECE {even:.1f} %",
                                                  "perfect"])
    header(figure, theme, "Reliability diagram", [run.summary, f"ECE {wide:.2f} %, adaptive ECE {even:.2f} % "
                                                  f"({BINS} bins each, {len(confidence):,} images)."])
    return figure
