"""Which prompt and which descriptions decide each class: the reweighting matrix of a DVP run.

Above, every class with its weight on each prompt; below, for a few classes, the descriptions that weigh most.
"""
from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor

from dassl.config import CfgNode
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import UserError
from tools.runs.run import Run, choose

from .style import (
    BODY,
    HEADING,
    LINE,
    MARGIN,
    SMALL,
    TINY,
    Page,
    Theme,
    flow,
    header_height,
    height_of,
    readable_on,
    widest,
    width_of,
    wrap,
)

CLASSES_SHOWN = 8
WIDTH, GUTTER = (10.0, 20.0), 0.45      # of the page, of one with many classes; between columns; inches
ROWS, COLUMN = 70, 4.3                  # classes in a column, while the page can grow; least width of descriptions
ROW, CELL = (0.185, 0.155), (0.32, 1.3)      # height of a class, of one among many; least and greatest width of a cell
BAR, VALUE, GAP = 1.0, 0.46, 0.055      # longest bar; room for its number; between two descriptions


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
        classes: whose descriptions are shown; () takes up to eight, those that lean most on each prompt.
        top: descriptions for each of them.
    """
    found = read(run)
    chosen = choose(found.classnames, classes) or found.telling(CLASSES_SHOWN)
    colours = theme.colours(len(found.prompts))
    title = ("Which prompt and which descriptions decide each class", [run.summary])
    width = _width(found)
    overview, details = _Overview(found, theme, colours, width), _Details(found, chosen, top, theme, colours, width)
    start = header_height(*title, width)
    page = Page(width, start + overview.height + details.height + MARGIN, theme)
    page.header(*title)
    overview.draw(page, start)
    details.draw(page, start + overview.height)
    return page.figure


def _width(found: Decisions) -> float:
    """Of the page: it grows with many classes, and with a name or prompts that need more."""
    block = widest(found.classnames, SMALL) + 0.1 + len(found.prompts) * CELL[0]
    blocks = math.ceil(len(found.classnames) / ROWS)
    wanted = 2 * MARGIN + blocks * (block + GUTTER) - GUTTER
    return max(min(max(wanted, WIDTH[0]), WIDTH[1]), 2 * MARGIN + block)


class _Overview:
    """Every class with its weight on each prompt, folded into as many columns as the page is wide."""

    def __init__(self, found: Decisions, theme: Theme, colours: list[str], width: float):
        self.found, self.theme, self.colours, self.order = found, theme, colours, found.order()
        C, self.v = found.shares.shape
        self.row = ROW[C > 60]
        self.keys = ["".join(filter(str.isdigit, name.split(":")[0])) for name in found.prompts]
        self.label = widest(found.classnames, SMALL) + 0.1
        room, least = width - 2 * MARGIN, self.label + self.v * CELL[0]
        self.blocks = max(1, min(int((room + GUTTER) // (least + GUTTER)), math.ceil(C / 5)))
        self.rows = math.ceil(C / self.blocks)
        self.step = (room + GUTTER) / self.blocks
        self.cell = min((self.step - GUTTER - self.label) / self.v, CELL[1])
        self.legend = [f"{name} ({100 * mean:.0f} %)" for name, mean in
                       zip(found.prompts, found.shares.mean(0).tolist())]
        self.places = flow([0.2 + width_of(text, BODY) for text in self.legend], room)
        self.top = self.places[-1][1] + 0.5
        self.height = self.top + 0.2 + self.rows * self.row + 0.35

    def draw(self, page: Page, y: float) -> None:
        for (dx, dy), text, colour in zip(self.places, self.legend, self.colours):
            page.box(MARGIN + dx, y + dy + 0.02, 0.13, 0.13, colour)
            page.text(MARGIN + dx + 0.2, y + dy, text, BODY)
        words = "Cells: percent of a class's weight that lies on the prompt; in brackets: mean over all classes"
        page.text(MARGIN, y + self.top - 0.28, words, SMALL, color=self.theme.muted)
        shares = self.found.shares
        most = float(shares.max())
        for block in range(self.blocks):
            rows = self.order[block * self.rows:(block + 1) * self.rows]
            if rows:
                self._block(page, MARGIN + block * self.step, y + self.top, shares[rows],
                            [self.found.classnames[c] for c in rows], most)

    def _block(self, page: Page, x: float, y: float, shares: Tensor, names: list[str], most: float) -> None:
        left = x + self.label
        for p, colour in enumerate(self.colours):
            page.text(left + (p + 0.5) * self.cell, y + 0.02, self.keys[p], SMALL, ha="center", weight="bold",
                      color=colour)
        y += 0.2
        ax = page.axes(left, y, self.v * self.cell, len(names) * self.row, bare=True)
        ax.set_gid("shares")
        for p, colour in enumerate(self.colours):
            ramp = self.theme.ramp(colour)
            ax.imshow(shares[:, p:p + 1].numpy(), cmap=ramp, vmin=0, vmax=most, aspect="auto",
                      extent=(p, p + 1, len(names), 0))
            for r, share in enumerate(shares[:, p].tolist()):
                ax.text(p + 0.5, r + 0.52, f"{100 * share:.0f}", size=TINY, ha="center", va="center",
                        color=readable_on(ramp(share / most)) if share else self.theme.muted)
        ax.set(xlim=(0, self.v), ylim=(len(names), 0))
        ax.hlines(range(1, len(names)), 0, self.v, color=self.theme.page, linewidth=1)
        ax.vlines(range(1, self.v), 0, len(names), color=self.theme.page, linewidth=2.5)
        for r, name in enumerate(names):
            page.text(left - 0.07, y + (r + 0.5) * self.row, name, SMALL, ha="right", va="center")


class _Details:
    """The heaviest descriptions of the chosen classes, in two columns."""

    def __init__(self, found: Decisions, chosen: list[int], top: int, theme: Theme, colours: list[str],
                 width: float):
        self.found, self.theme, self.colours = found, theme, colours
        self.columns = max(1, min(int((width - 2 * MARGIN + GUTTER) // (COLUMN + GUTTER)), len(chosen)))
        self.column = (width - 2 * MARGIN + GUTTER) / self.columns - GUTTER
        self.room = self.column - BAR - VALUE
        self.panels = [(found.classnames[c], [(w, p, wrap(text, self.room, SMALL)) for w, p, text in found.top(c, top)])
                       for c in chosen]
        self.most = max((w for _, rows in self.panels for w, _, _ in rows), default=1.0)
        self.lines = [self.panels[i:i + self.columns] for i in range(0, len(self.panels), self.columns)]
        self.height = 0.62 + sum(max(map(self._panel_height, line)) for line in self.lines)

    def _title(self, name: str) -> list[str]:
        return wrap(name, self.column - width_of("100 % together", SMALL) - 0.2, BODY, "bold")

    def _panel_height(self, panel: tuple) -> float:
        texts = sum(height_of(len(text), SMALL) + GAP for _, _, text in panel[1])
        return height_of(len(self._title(panel[0])), BODY) + 0.08 + texts + 0.2

    def draw(self, page: Page, y: float) -> None:
        page.rule(y)
        page.text(MARGIN, y + 0.14, "Descriptions that weigh most", HEADING, weight="bold")
        page.text(MARGIN, y + 0.35, "percent of the class's weight; the colour is that of the prompt that looks for it",
                  SMALL, color=self.theme.muted)
        y += 0.62
        for line in self.lines:
            for i, panel in enumerate(line):
                self._panel(page, MARGIN + i * (self.column + GUTTER), y, *panel)
            y += max(map(self._panel_height, line))

    def _panel(self, page: Page, x: float, y: float, name: str, rows: list) -> None:
        title = self._title(name)
        page.text(x, y, title, BODY, weight="bold")
        rest = f"{100 * sum(w for w, _, _ in rows):.0f} % together"
        page.text(x + self.column, y, rest, SMALL, ha="right", color=self.theme.muted)
        y += height_of(len(title), BODY) + 0.08
        height = sum(height_of(len(text), SMALL) + GAP for _, _, text in rows)
        if not rows:
            return
        ax = page.axes(x, y, BAR, height, bare=True)
        ax.set_gid(f"top {name}")
        ax.set(xlim=(0, self.most), ylim=(height, 0))
        at, thick = 0.0, SMALL * LINE / 72 * 0.78
        for weight, p, text in rows:
            first = at + height_of(1, SMALL) / 2
            ax.barh(first, weight, height=thick, color=self.colours[p])
            page.text(x + weight / self.most * BAR + 0.05, y + first, f"{100 * weight:.1f}", TINY, va="center",
                      color=self.theme.muted)
            page.text(x + BAR + VALUE, y + at, text, SMALL)
            at += height_of(len(text), SMALL) + GAP
