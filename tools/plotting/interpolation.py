"""Accuracy against the share of fine-tuned weights, and accuracy under shift against accuracy on the source.

Source: WiSE-FT (Wortsman et al., CVPR 2022), Figure 1.
"""
from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tools.runs.run import Run

from .style import BODY, HEADING, MARGIN, SMALL, Page, Theme, header_height, height_of

SIDE, AXIS, NOTES, GAP = 3.2, 0.55, 1.75, 0.75       # of a panel, left of it, right of the first, between them: inches


def draw(found: dict, run: Run, theme: Theme) -> Figure:
    """The figure of what `tools.interpolate.curve` gives; the second panel needs a target."""
    accuracy, shares, source = found["accuracy"], found["shares"], found["source"]
    targets = [values for name, values in accuracy.items() if name != source]
    title = ("Between the weights before and after fine-tuning",
             [run.summary, f"Accuracy on the {found['split']} split; share 1 is what the training ended with."])
    width = 2 * MARGIN + AXIS + SIDE + NOTES + (GAP + AXIS + SIDE if targets else 0)
    top = header_height(*title, width) + 0.3
    page = Page(width, top + SIDE + 0.75, theme)
    page.header(*title)
    ax, x, y = page.axes(MARGIN + AXIS, top, SIDE, SIDE), MARGIN + AXIS + SIDE + 0.15, top
    page.text(MARGIN, top - 0.25, "accuracy, %", HEADING, weight="bold")
    for (name, values), colour in zip(accuracy.items(), theme.colours(len(accuracy))):
        ax.plot(shares, values, color=colour, linewidth=1.7, marker="o", markersize=3, gid=name, clip_on=False)
        page.text(x, y, name, BODY, color=colour, weight="bold")
        best = max(range(len(shares)), key=values.__getitem__)
        page.text(x, y + height_of(1, BODY), f"{values[0]:.1f} to {values[-1]:.1f}, most {values[best]:.1f}", SMALL,
                  color=theme.muted)
        y += height_of(1, BODY) + height_of(1, SMALL) + 0.08
    ax.set(xlabel="share of the fine-tuned weights", xlim=(0, 1))
    ax.yaxis.set_major_locator(MaxNLocator(6))
    ax.grid()
    if targets:
        mean = [sum(values) / len(targets) for values in zip(*targets, strict=True)]
        left = MARGIN + AXIS + SIDE + NOTES + GAP
        page.text(left, top - 0.25, "mean under shift, %" if len(targets) > 1 else "under shift, %", HEADING,
                  weight="bold")
        ax = page.axes(left + AXIS, top, SIDE, SIDE)
        ax.plot(accuracy[source], mean, color=theme.hues[0], linewidth=1.7, marker="o", markersize=3, gid="curve")
        for i in {0, len(shares) // 2, len(shares) - 1}:
            ax.annotate(f"{shares[i]:g}", (accuracy[source][i], mean[i]), textcoords="offset points", xytext=(5, -9),
                        fontsize=SMALL, color=theme.muted)
        ax.set_xlabel(f"{source}, %")
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.yaxis.set_major_locator(MaxNLocator(6))
        ax.grid()
        ax.margins(0.12)
    return page.figure
