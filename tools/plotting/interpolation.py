"""Accuracy against the share of fine-tuned weights, and accuracy under shift against accuracy on the source.

Source: WiSE-FT (Wortsman et al., CVPR 2022), Figure 1.
"""
from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tools.runs.run import Run

from .style import Theme, header, legend, sheet


def draw(found: dict, run: Run, theme: Theme) -> Figure:
    """The figure of what `tools.interpolate.curve` gives; the second panel needs a target."""
    accuracy, shares, source = found["accuracy"], found["shares"], found["source"]
    targets = [values for name, values in accuracy.items() if name != source]
    figure = sheet(theme, 7.5 if targets else 4.2, 3.4)
    first, *second = figure.subplots(1, 2 if targets else 1, squeeze=False)[0]
    lines = [first.plot(shares, values, gid=name, clip_on=False, **theme.look(i))[0]
             for i, (name, values) in enumerate(accuracy.items())]
    first.set(xlabel="share of the fine-tuned weights", ylabel="accuracy, %", xlim=(0, 1))
    for ax in second:
        mean = [sum(values) / len(targets) for values in zip(*targets, strict=True)]
        ax.plot(accuracy[source], mean, gid="curve", **theme.look(0))
        for i in {0, len(shares) // 2, len(shares) - 1}:
            ax.annotate(f"{shares[i]:g}", (accuracy[source][i], mean[i]), textcoords="offset points", xytext=(5, -9),
                        fontsize=theme.small, color=theme.muted)
        ax.set(xlabel=f"{source}, %", ylabel="mean under shift, %" if len(targets) > 1 else "under shift, %")
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.margins(0.12)
    for ax in (first, *second):
        ax.yaxis.set_major_locator(MaxNLocator(6))
        ax.grid()
    legend(figure, lines, list(accuracy))
    header(figure, theme, "Between the weights before and after fine-tuning",
           [run.summary, f"Accuracy on the {found['split']} split; share 1 is what the training ended with."])
    return figure
