"""The vocabulary's words nearest to each learned context word, by Euclidean distance between token embeddings.

Source: as in Learning to Prompt for Vision-Language Models (Zhou et al., IJCV 2022), section 4.2, and CoOp's
interpret_prompt.py.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pandas as pd
import torch
from matplotlib.figure import Figure
from tabulate import tabulate
from torch import Tensor

from clip import load_clip
from clip.tokenizer import END, START, simple_tokenizer
from dassl.utils import UserError
from tools.runs.run import Run, choose
from trainers.errors import as_user_error

from .style import Theme, drawable, header, sheet

CLASSES_SHOWN = 3
SAMPLE = 400                            # vocabulary rows for the distance that is usual among words
ROW = 0.28                              # height of a context word: inches


@dataclass(frozen=True)
class Found:
    """Attributes:
        words: a row for each context word and rank: context (whose it is), position, rank, word, whole_word (whether
            it ends a word, and no more letters follow), token, distance.
        usual: median distance of a vocabulary row to its nearest other one. notes: what to know.
    """

    words: pd.DataFrame
    usual: float
    notes: list[str]

    @property
    def contexts(self) -> dict[str, list[tuple[list[str], list[float]]]]:
        """Name -> for each of its words the nearest ones, "pho-" for a piece, and their distances."""
        shown = self.words.assign(shown=self.words.word.where(self.words.whole_word, self.words.word + "-"))
        return {name: [(list(row.shown), list(row.distance)) for _, row in own.groupby("position")]
                for name, own in shown.groupby("context", sort=False)}


@lru_cache(maxsize=2)
def read(run: Run, classes: tuple[str, ...] = (), top: int = 5) -> Found:
    """The nearest words.

    Args:
        classes: whose contexts, where every class has its own; () takes three classes.
        top: how many words for each context word.
    Raises:
        UserError: the run learned no context words; classes of a run whose context all classes share.
    """
    vectors = learned_context(run)
    with as_user_error():
        clip = load_clip(run.settings["MODEL"]["BACKBONE"]["NAME"])
    table = clip.token_embedding.weight.detach().float()                                  # (V, W)
    if vectors.shape[-1] != table.shape[1]:
        raise UserError(f"The context of {run.checkpoint} is {vectors.shape[-1]} wide and the token embedding of "
                        f"{clip.name} {table.shape[1]}: it was learned with another backbone.")
    ids = torch.tensor(sorted(clip.known_tokens)) if clip.known_tokens else torch.arange(len(table))
    notes = [f"Only the {len(ids)} tokens that the embedded CLIP was trained on are compared."] * bool(
        clip.known_tokens)
    if run.holds("meta_net."):
        notes.append("Every image shifts these words; what is shown is the part that all images share.")
    named = _named(run, vectors, classes)
    if vectors.dim() == 3 and len(vectors) > len(named) and not classes:
        notes.append(f"{len(named)} of {len(vectors)} classes; --classes NAME shows others.")
    words = [nearest(own, table[ids], ids, top).assign(context=name) for name, own in named]
    return Found(pd.concat(words, ignore_index=True), usual_distance(table[ids]), notes)


def learned_context(run: Run) -> Tensor:
    """(n, W), or (C or P, n, W) where classes or prompts have contexts of their own.

    Raises:
        UserError: there is none.
    """
    _ = run.checkpoint                          # raises where there is none
    for key in ("ctx", "txt_ctx", "text.ctx"):
        if run.holds(key):
            return run.learned[key].float()
    raise UserError(f"words reads learned context words; {run.folder} is a run of {run.trainer}, which keeps none. "
                    "Draw it with another figure: tools/plot.py --help.")


def nearest(vectors: Tensor, table: Tensor, ids: Tensor, top: int) -> pd.DataFrame:
    """The `top` closest rows of the table to each of n vectors, nearest first; columns as in `Found`.

    Args:
        vectors: (n, W). table: (V, W). ids: (V,) which token each row is.
    """
    distances = torch.cdist(vectors, table, compute_mode="donot_use_mm_for_euclid_dist")      # (n, V)
    found = distances.sort(dim=1, stable=True)
    return pd.DataFrame([
        (position, rank, *spell(token), token, distance)
        for position, (own, rows) in enumerate(zip(found.values, ids[found.indices]), 1)
        for rank, (distance, token) in enumerate(zip(own[:top].tolist(), rows[:top].tolist()), 1)
    ], columns=["position", "rank", "word", "whole_word", "token", "distance"])


def usual_distance(table: Tensor) -> float:
    """Median distance of a row to its nearest other one, over a fixed sample."""
    rows = torch.randperm(len(table), generator=torch.Generator().manual_seed(0))[:SAMPLE]
    distances = torch.cdist(table[rows], table)                                               # (s, V)
    return float(distances.scatter(1, rows[:, None], float("inf")).amin(1).median())


def spell(token: int) -> tuple[str, bool]:
    """Letters of a token, and whether a word ends with it; bytes that are no letter are written as \\x.."""
    tokenizer = simple_tokenizer()
    piece = tokenizer.decoder[token]
    whole = piece.endswith("</w>") or token in (START, END)
    letters = bytes(tokenizer.byte_decoder[letter] for letter in piece.removesuffix("</w>"))
    text = letters.decode("utf-8", errors="backslashreplace")
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text), whole


def as_text(found: Found, run: Run) -> str:
    """The table for a console."""
    top = found.words["rank"].max()
    head = ["", *(part for i in range(top) for part in ((f"{i + 1}", "distance") if i else ("nearest", "distance")))]
    lines = [run.summary, ""]
    for name, context in found.contexts.items():
        rows = [[i, *(part for word, distance in zip(*row) for part in (word, f"{distance:.3f}"))]
                for i, row in enumerate(context, 1)]
        lines += [f"{name}:", tabulate(rows, headers=head, disable_numparse=True,
                                       colalign=["right", *["left", "right"] * top]), ""]
    return "\n".join([*lines, scale(found), *found.notes])


def write_csv(found: Found, path: Path) -> None:
    """One row for each context word and rank."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = ["context", "position", "rank", "word", "whole_word", "token", "distance"]
    found.words.astype({"whole_word": int}).to_csv(path, index=False, float_format="%.6f", columns=columns)


def draw(run: Run, theme: Theme, classes: Sequence[str] = (), top: int = 5) -> Figure:
    """The same table as a figure; the nearer a word, the fuller its cell."""
    found = read(run, tuple(classes), top)
    top, heights = found.words["rank"].max(), [len(context) for context in found.contexts.values()]
    figure = sheet(theme, max(4.5, 1.4 * top + 0.5), ROW * sum(heights) + 0.35 * len(heights))
    low, high = found.words.distance.min(), found.words.distance.max()
    ramp = theme.heat().reversed()
    room = int((figure.get_figwidth() - 0.5) / top * 72 / (0.55 * theme.body))
    axes = figure.subplots(len(heights), height_ratios=heights, squeeze=False)[:, 0]
    for ax, (name, own) in zip(axes, found.contexts.items()):
        ax.imshow([row for _, row in own], cmap=ramp, vmin=low, vmax=max(high, low + 1e-9), aspect="auto")
        for i, row in enumerate(own):
            for k, (word, distance) in enumerate(zip(*row)):
                number = f" {distance:.3f}"
                ax.text(k - 0.46, i, _fit(drawable(word), room - (not theme.paper) * len(number)), va="center")
                if not theme.paper:
                    ax.text(k + 0.45, i, number, va="center", ha="right", size=6.5)
        ax.set(title=_fit(drawable(name), 16 * top) if len(heights) > 1 else "", xticks=[], gid=name)
        ax.set_yticks(range(len(own)), range(1, len(own) + 1))
        ax.hlines([i + 0.5 for i in range(len(own) - 1)], -0.5, top - 0.5, color=theme.page, linewidth=1.5)
        ax.vlines([k + 0.5 for k in range(top - 1)], -0.5, len(own) - 0.5, color=theme.page, linewidth=1.5)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
    header(figure, theme, "Words nearest to the learned context", [run.summary, scale(found), *found.notes])
    return figure


def _named(run: Run, vectors: Tensor, classes: Sequence[str]) -> list[tuple[str, Tensor]]:
    own = class_specific(run)
    if classes and not own:
        raise UserError(f"All classes of {run.folder} share one context, so --classes has nothing to choose. Leave it "
                        "out; contexts of each class are learned with TRAINER.COOP.CSC True.")
    if vectors.dim() == 2:
        return [("learned context", vectors)]
    if not own:
        return [(f"prompt {i}", prompt) for i, prompt in enumerate(vectors, 1)]
    names = run.classnames
    if len(names) != len(vectors):
        raise UserError(f"The checkpoint {run.checkpoint} has contexts of {len(vectors)} classes, and the run names "
                        f"{len(names)}. Has the dataset changed? Train again.")
    places = choose(names, classes) or range(min(CLASSES_SHOWN, len(names)))
    return [(names[c], vectors[c]) for c in places]


def class_specific(run: Run) -> bool:
    return any(options.get("CSC") for name, options in run.settings["TRAINER"].items()
               if isinstance(options, dict) and name.upper() == run.trainer.upper())


def scale(found: Found) -> str:
    """What the distances are, and one to compare them with."""
    return ("Euclidean distance between token embeddings; typical nearest-neighbour distance between vocabulary "
            f"words: {found.usual:.3f}. A trailing - marks a word piece.")


def _fit(text: str, room: int) -> str:
    """Cut with … where it would not fit into so many letters."""
    return text if len(text) <= room else f"{text[:max(1, room - 1)]}…"
