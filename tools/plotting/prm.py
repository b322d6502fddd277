"""Which prompt and which descriptions decide each class: the reweighting matrix of a DVP run.

Above, every class with its weight on each prompt; below, for a few classes, the descriptions that weigh most.
"""
from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from dassl.config import CfgNode
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import UserError
from tools.runs.run import Run, choose

from .style import Theme, drawable, header, legend, sheet, wrap

CLASSES_SHOWN, PAPER_CLASSES = 8, 3
WIDTH, DETAILS = 10.0, 4.5              # of the figure; of a column of descriptions: inches


@dataclass
class Decisions:
    """What decides each of C classes.

    Attributes:
        weights: (C, m), rows sum to 1. prompt_of: (C, m) in [0, v). sentences: C lists of m.
        prompts: names of the v prompts.
    """

    classnames: list[str]
    weights: Tensor
    prompt_of: Tensor
    sentences: list[list[str]]
    prompts: list[str]

    @property
    def shares(self) -> Tensor:
        """(C, v): a class's weight on each prompt, summed over the descriptions that the prompt scores."""
        return torch.zeros(len(self.weights), len(self.prompts)).scatter_add_(1, self.prompt_of, self.weights)

    def order(self) -> list[int]:
        """Classes of the same leading prompt together, the most one-sided first."""
        top = self.shares.max(dim=1)
        return sorted(range(len(self.weights)), key=lambda c: (int(top.indices[c]), -float(top.values[c])))

    def telling(self, count: int) -> list[int]:
        """The classes that lean most on each prompt in turn, in the order of `order`."""
        queues = [sorted(range(len(self.shares)), key=lambda c, p=p: -float(self.shares[c, p]))
                  for p in range(len(self.prompts))]
        chosen: list[int] = []
        while len(chosen) < min(count, len(self.weights)):
            for queue in queues:
                chosen += [next(c for c in queue if c not in chosen)] if len(chosen) < len(self.weights) else []
        return [c for c in self.order() if c in chosen[:count]]

    def top(self, c: int, count: int) -> list[tuple[float, int, str]]:
        """(weight, prompt, sentence) of the heaviest descriptions; one that was drawn twice is counted together."""
        merged: dict[tuple[int, str], float] = {}
        for weight, p, text in zip(self.weights[c].tolist(), self.prompt_of[c].tolist(), self.sentences[c]):
            merged[p, text] = merged.get((p, text), 0.0) + weight
        heaviest = sorted(merged.items(), key=lambda item: -item[1])[:count]
        return [(weight, p, text) for (p, text), weight in heaviest if weight > 0]


def read(run: Run) -> Decisions:
    """Raises UserError where the run has no reweighting matrix."""
    _ = run.checkpoint                          # says why, where there is none
    if not run.holds("bank.mapping.weights"):
        raise UserError(f"prm draws a counted reweighting matrix of descriptions; {run.folder} is a run of "
                        f"{run.trainer}, which has none. Draw it with another figure: tools/plot.py --help.")
    state = run.learned
    v = sum(key.startswith("pixel.") and key.endswith(".program") for key in state)
    sentences = json.loads(bytes(state["bank.text"].tolist()))
    if len(run.classnames) != len(sentences):
        raise UserError(f"The checkpoint {run.checkpoint} weighs descriptions of {len(sentences)} classes, and the run "
                        f"names {len(run.classnames)}. Was descriptions.json changed, or the dataset? Train again.")
    return Decisions(run.classnames, state["bank.mapping.weights"], state["bank.prompt_of"], sentences,
                     prompt_names(run, v))


def prompt_names(run: Run, v: int) -> list[str]:
    """"cause 1: shape" where the dataset says what its causes are, else "cause 1"; "cluster 1"; "prompt"."""
    run.register()
    method = TRAINER_REGISTRY.get(run.trainer)
    options = run.settings["TRAINER"].get(getattr(method, "section", ""))
    kinds = method.kinds(CfgNode(options)) if hasattr(method, "kinds") else []
    if kinds != [f"cse_{kind.removeprefix('cse_')}" for kind in kinds] or len(kinds) != v:
        what = "cluster" if len(kinds) == 1 else "prompt"
        return [what] if v == 1 else [f"{what} {i + 1}" for i in range(v)]
    causes = dict(enumerate(() if options["DESCRIPTIONS"] else getattr(DATASET_REGISTRY.get(run.dataset), "causes", ()),
                            1))
    numbers = [int(kind.removeprefix("cse_")) for kind in kinds]
    return [f"cause {i}: {causes[i]}" if i in causes else f"cause {i}" for i in numbers]


def draw(run: Run, theme: Theme, classes: Sequence[str] = (), top: int = 5) -> Figure:
    """The figure.

    Args:
        classes: whose descriptions are shown; () takes up to eight, those that lean most on each prompt. For a paper
            three for each column of descriptions, and the table has these alone.
        top: descriptions for each of them.
    """
    found = read(run)
    colours, width = theme.colours(len(found.prompts)), theme.wide(WIDTH)
    chosen = choose(found.classnames, classes) or found.telling(
        PAPER_CLASSES * max(1, int(width / DETAILS)) if theme.paper else CLASSES_SHOWN)
    order = [c for c in found.order() if c in chosen or not theme.paper]
    label = max(len(found.classnames[c]) for c in order) * theme.small * 0.6 / 72
    blocks = max(1, min(int(width / (label + 0.35 * len(found.prompts) + 0.3)), math.ceil(len(order) / 5)))
    rows = math.ceil(len(order) / blocks)
    columns = max(1, min(int(width / DETAILS), len(chosen)))
    tops = [[(weight, p, wrap(text, width / columns - 1.3, theme.small)) for weight, p, text in found.top(c, top)]
            for c in chosen]
    titles = [wrap(f"{found.classnames[c]} ({100 * sum(weight for weight, *_ in own):.0f} % together)",
                   width / columns - 0.3, 11) for c, own in zip(chosen, tops)]
    lines = [sum(len(text) for *_, text in own) + 1.4 * len(title) + 0.8 for own, title in zip(tops, titles)]
    lines += [1.0] * (-len(lines) % columns)
    heights = [max(lines[i:i + columns]) for i in range(0, len(lines), columns)]
    line = 1.35 * theme.small / 72
    upper, lower = rows * 1.3 * line + 0.3, sum(heights) * line + 0.3
    figure = sheet(theme, WIDTH, upper + lower)
    above, below = figure.subfigures(2, 1, height_ratios=(upper, lower))
    shares = found.shares
    for block, ax in enumerate(above.subplots(1, blocks, squeeze=False)[0]):
        _shares(ax, [(found.classnames[c], shares[c].tolist()) for c in order[block * rows:(block + 1) * rows]], found,
                colours, float(shares.max()), theme)
    axes = below.subplots(len(heights), columns, squeeze=False, height_ratios=heights).flat
    most = max((weight for own in tops for weight, *_ in own), default=1.0)
    for i, (ax, c, own) in enumerate(zip(axes, chosen, tops)):
        _descriptions(ax, own, colours, most, theme)
        ax.set(gid=f"top {found.classnames[c]}", title="\n".join(titles[i]), ylim=(heights[i // columns] - 2.0, 0))
    for ax in axes[len(chosen):]:
        ax.set_axis_off()
    legend(figure, [Patch(color=colour) for colour in colours], [
        f"{name} ({100 * mean:.0f} %)" for name, mean in zip(found.prompts, shares.mean(0).tolist())])
    header(figure, theme, "Which prompt and which descriptions decide each class", [
        run.summary, "Table: percent of a class's weight that lies on each prompt; in brackets the mean over all "
        "classes. Bars: the descriptions with most weight, in percent; the colour is that of their prompt."])
    return figure


def _shares(ax: Axes, rows: list[tuple[str, list[float]]], found: Decisions, colours: list[str], most: float,
            theme: Theme) -> None:
    """Every class with its weight on each prompt."""
    ax.set_gid("shares")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0, top=False, labeltop=True, labelbottom=False)
    if not rows:
        ax.set_axis_off()
        return
    v = len(found.prompts)
    cells = [[theme.heat(colours[p])(share / most) for p, share in enumerate(own)] for _, own in rows]
    ax.imshow(cells, aspect="auto")
    for (r, (_, own)), p in itertools.product(enumerate(rows), range(v)):
        ax.text(p, r, f"{100 * own[p]:.0f}", size=theme.small, ha="center", va="center_baseline")
    ax.set_yticks(range(len(rows)), [drawable(name) for name, _ in rows])
    ax.set_xticks(range(v), ["".join(filter(str.isdigit, name.split(":")[0])) for name in found.prompts], weight="bold")
    for tick, colour in zip(ax.get_xticklabels(), colours):
        tick.set_color(colour)
    ax.vlines([p + 0.5 for p in range(v - 1)], -0.5, len(rows) - 0.5, color=theme.page, linewidth=2.5)
    ax.hlines([r + 0.5 for r in range(len(rows) - 1)], -0.5, v - 0.5, color=theme.page, linewidth=1)


def _descriptions(ax: Axes, rows: list[tuple[float, int, list[str]]], colours: list[str], most: float,
                  theme: Theme) -> None:
    """A class's heaviest descriptions: bars, and right of them their words."""
    ax.set(xticks=[], xlim=(0, 1.35 * most))
    at = itertools.accumulate((len(text) for *_, text in rows), initial=0)
    middles = [start + len(text) / 2 for start, (*_, text) in zip(at, rows)]
    ax.barh(middles, [weight for weight, *_ in rows], 0.7, color=[colours[p] for _, p, _ in rows])
    for y, (weight, *_) in zip(middles, rows):
        ax.text(weight + 0.02 * most, y, f"{100 * weight:.1f}", size=theme.small, va="center_baseline",
                color=theme.muted)
    ax.set_yticks(middles, ["\n".join(text) for *_, text in rows])
    ax.yaxis.tick_right()
    ax.tick_params(length=0, labelcolor=theme.ink)
    ax.spines[:].set_visible(False)
